"""What a batch of songs takes beside its time: memory of the process and of the device, seconds of loading."""

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar

T = TypeVar("T")

MB: Final = 1e6

_STATUS: Final = Path("/proc/self/status")


def peak_memory_mb() -> float:
    """Most memory that this process has held since it began, in MB (resident set, models and all)."""
    if _STATUS.exists():
        # Not getrusage on Linux: there ru_maxrss starts at the size of the process that started this one.
        kib = _STATUS.read_text().partition("VmHWM:")[2].split()[0]
        return int(kib) * 1024 / MB
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / MB


def peak_device_memory_mb(device: str) -> float | None:
    """Most memory that torch's tensors have held on a CUDA device since this process began, in MB.

    None for other devices: the CPU's is the process's own, and MPS keeps no such count.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / MB


def timed(load: Callable[[], T]) -> tuple[T, float]:
    """What ``load`` returns, and the seconds that it took: next to none where it was loaded before."""
    started = perf_counter()
    loaded = load()
    return loaded, perf_counter() - started
