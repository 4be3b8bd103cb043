"""Measure resources: peak memory of the process and of the device, seconds of loading."""

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Final, TypeVar

T = TypeVar("T")

MB: Final = 1e6

_STATUS: Final = Path("/proc/self/status")


def peak_memory_mb() -> float:
    """The peak memory of this process since its start, in MB (resident set, with the models)."""
    if _STATUS.exists():
        # On Linux, ru_maxrss of getrusage starts at the size of the parent process.
        kib = _STATUS.read_text().partition("VmHWM:")[2].split()[0]
        return int(kib) * 1024 / MB
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / MB


def peak_device_memory_mb(device: str) -> float | None:
    """The peak memory of torch's tensors on a CUDA device since the start of this process, in MB.

    None for other devices: on the CPU it is part of the process's memory, and MPS does not count it.
    """
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / MB


def timed(load: Callable[[], T]) -> tuple[T, float]:
    """The result of ``load``, and the seconds that it took."""
    started = perf_counter()
    loaded = load()
    return loaded, perf_counter() - started
