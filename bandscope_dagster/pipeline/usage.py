"""What a batch of songs takes beside its time: memory of the process and of the device, seconds of loading."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, perf_counter
from typing import Final, TypeVar

T = TypeVar("T")

MB: Final = 1e6

GIVE_BACK_EVERY_S: Final = 20.0

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


class FreedMemory:
    """Gives what was freed back to the system from time to time, where glibc would keep it for ever.

    Songs of all lengths leave gaps of all sizes between what is in use: without this, 500 songs in one process made it
    grow by a quarter (``benchmarks/RESULTS.md``). What is needed again costs its page faults once more, so it is done
    between songs and not for every one. Where there is no glibc nothing happens.
    """

    def __init__(self) -> None:
        self._given_back = monotonic()
        library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
        self._trim = getattr(library, "malloc_trim", None)

    def give_back(self) -> None:
        """Give it back, if the last time was ``GIVE_BACK_EVERY_S`` ago; else nothing."""
        if self._trim is not None and monotonic() - self._given_back > GIVE_BACK_EVERY_S:
            self._trim(0)
            self._given_back = monotonic()


def timed(load: Callable[[], T]) -> tuple[T, float]:
    """What ``load`` returns, and the seconds that it took: next to none where it was loaded before."""
    started = perf_counter()
    loaded = load()
    return loaded, perf_counter() - started
