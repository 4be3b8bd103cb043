"""Settings of glibc's allocator: freed memory is shared by threads, reused, and returned to the system.

With another C library, these functions do nothing. The numbers of the options are from glibc's ``malloc.h``:
https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

import ctypes
import logging
import os
import sys
from functools import cache
from math import inf
from time import monotonic
from typing import Final

logger = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
OWN_PAGES_FROM_BYTES: Final = (64 * 2**20, 32 * 2**20)  # older versions of glibc accept only the second
UNUSED_BYTES: Final = 256 * 2**20  # free bytes that the heap keeps at its end
KEEP_BYTES: Final = 2**31 - 1  # the largest int: free memory stays with the process
GROW_BYTES: Final = 256 * 2**20  # the heap grows in steps of this size

GIVE_BACK_EVERY_S: Final = 20.0


def without_thread_caches() -> dict[str, str]:
    """The environment variable that turns off glibc's caches of small blocks, one for each thread.

    Torch aligns its tensors, and the bytes left over beside each tensor go into the thread's cache. Later allocations
    then use blocks between tensors, and no large tensor fits there again: in a process that computes hundreds of songs
    the heap grows with the longest of them and never shrinks, and with HTDemucs on a CPU it is a sixth larger
    (``benchmarks/RESULTS.md``). glibc reads the variable only when a program starts:
    https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html

    Empty if the variable is already set, or the C library is not glibc.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not hasattr(_glibc(), "mallopt") or "glibc.malloc.tcache_count" in tunables:
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, [tunables, "glibc.malloc.tcache_count=0"]))}


def restart_without_thread_caches() -> None:
    """Restart this program in its process, with the same arguments, if it was started with thread caches."""
    setting = without_thread_caches()
    same_program = sys.orig_argv[-len(sys.argv) :] == sys.argv  # False in a program that only imports it
    if setting and same_program:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | setting)


@cache
def share_freed_memory() -> None:
    """Make all threads of this process allocate from one heap, so that memory freed by one is used by another.

    By default each thread that reads, decodes, encodes or stores gets its own heap, up to eight per core, and memory
    that it frees stays there: about 80 MB more for the same songs, and more with time. A tensor also does not fit into
    the 64 MB of such a heap. Threads that have already allocated keep their heaps, and leave them to later threads. So
    call this when a program or a step begins. ``MALLOC_ARENA_MAX=1`` in the environment of a program does the same.

    Blocks of up to 64 MB are also in that heap, and the free end of the heap is kept. By default, page faults for part
    of the embedded separator's memory take a tenth of its time in every segment.
    """
    _set({M_ARENA_MAX: 1}, "the process takes more memory")
    mallopt = getattr(_glibc(), "mallopt", None)
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in OWN_PAGES_FROM_BYTES):
        _set({M_TRIM_THRESHOLD: UNUSED_BYTES}, "the models take more time")


@cache
def keep_freed_memory() -> None:
    """Make glibc reuse the memory of freed tensors, instead of returning each to the system and faulting it in again.

    Otherwise a segment of HTDemucs costs half a million page faults and a sixth of the CPU time. This applies to
    tensors that are allocated from now on in this process.
    """
    share_freed_memory()
    options = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEEP_BYTES, M_TOP_PAD: GROW_BYTES}
    _set(options, "separation on the CPU takes a sixth more time")


class FreedMemory:
    """Returns freed memory to the system every 20 s; glibc alone would keep it for ever.

    Allocations leave gaps of all sizes between blocks in use, and more with time: without this class, a process grew by
    a quarter over 500 songs (``benchmarks/RESULTS.md``). Returned memory that is needed again costs page faults: every
    5 s they would take 2 % of the time, with the embedded models and with HTDemucs.
    """

    def __init__(self) -> None:
        self._given_back = -inf  # loading the models left gaps
        self._trim = getattr(_glibc(), "malloc_trim", None)

    def give_back(self) -> None:
        """Return freed memory, if the last time was at least 20 s ago."""
        if self._trim is not None and monotonic() - self._given_back > GIVE_BACK_EVERY_S:
            self._trim(0)
            self._given_back = monotonic()


def _set(options: dict[int, int], otherwise: str) -> None:
    mallopt = getattr(_glibc(), "mallopt", None)
    if mallopt is not None and not all(mallopt(option, value) for option, value in options.items()):
        logger.warning("mallopt refused a setting; %s", otherwise)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None
