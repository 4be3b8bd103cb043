"""What glibc's allocator keeps of freed memory, and what it gives back; with another C library nothing happens here.

Options and their numbers are those of glibc's ``malloc.h``: https://man7.org/linux/man-pages/man3/mallopt.3.html
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
OWN_PAGES_FROM_BYTES: Final = (64 * 2**20, 32 * 2**20)  # older versions of glibc take no more than the second
UNUSED_BYTES: Final = 256 * 2**20  # that are kept at the end of the heap
KEEP_BYTES: Final = 2**31 - 1  # the largest int: free memory is not given back to the system
GROW_BYTES: Final = 256 * 2**20  # by which the heap grows

GIVE_BACK_EVERY_S: Final = 20.0


def without_thread_caches() -> dict[str, str]:
    """What has to be in the environment of a program so that glibc keeps no small blocks for each of its threads.

    Torch aligns its tensors, and what is left over beside each one goes into the thread's cache. What is put there
    later stands between tensors, so that no large one fits there again: in a program that takes hundreds of songs the
    heap grows with the longest of them, for ever, and with HTDemucs on a CPU it is a sixth larger
    (``benchmarks/RESULTS.md``). glibc reads this as a program begins, and at no other time:
    https://sourceware.org/glibc/manual/latest/html_node/Memory-Allocation-Tunables.html

    Empty where it is there already, or the C library is another one.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if not hasattr(_glibc(), "mallopt") or "glibc.malloc.tcache_count" in tunables:
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, [tunables, "glibc.malloc.tcache_count=0"]))}


def restart_without_thread_caches() -> None:
    """Start this program anew in its process, with the same arguments, where it was started with thread caches."""
    setting = without_thread_caches()
    same_program = sys.orig_argv[-len(sys.argv) :] == sys.argv  # and not one that imported this one
    if setting and same_program:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | setting)


@cache
def share_freed_memory() -> None:
    """Have all threads of this process allocate from one heap, so that what one frees another uses.

    By default each thread that reads, decodes, encodes or stores gets a heap of its own, up to eight for each core,
    and what it frees stays there: some 80 MB more for the same songs, and more with time; and a tensor does not fit
    into the 64 MB of such a heap. Threads that have begun to allocate keep theirs and leave it to those that come
    later, so this belongs to the beginning of a program; where that is another's, ``MALLOC_ARENA_MAX=1`` in the
    environment does the same.

    Blocks of up to 64 MB lie in that heap too, and its end is not given back for each that is freed there: by default
    what the embedded separator needs for a segment is in part faulted in anew, which takes a tenth of its time.
    """
    _set({M_ARENA_MAX: 1}, "the process takes more memory")
    mallopt = getattr(_glibc(), "mallopt", None)
    if mallopt is not None and any(mallopt(M_MMAP_THRESHOLD, size) for size in OWN_PAGES_FROM_BYTES):
        _set({M_TRIM_THRESHOLD: UNUSED_BYTES}, "the models take more time")


@cache
def keep_freed_memory() -> None:
    """Have glibc reuse the memory of freed tensors, instead of giving each back to the system and faulting it in anew.

    A segment of HTDemucs otherwise costs half a million page faults and a sixth of the CPU time. It counts for
    tensors allocated from now on, in this process.
    """
    share_freed_memory()
    options = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: KEEP_BYTES, M_TOP_PAD: GROW_BYTES}
    _set(options, "separation on the CPU takes a sixth more time")


class FreedMemory:
    """Gives what was freed back to the system from time to time, where glibc would keep it for ever.

    What is allocated and freed leaves gaps of all sizes between what is in use, and more of them with time: without
    this, 500 songs in one process made it grow by a quarter (``benchmarks/RESULTS.md``). What is needed again costs its
    page faults once more: every 5 s they would take 2 % of the time, with the embedded models as with HTDemucs.
    """

    def __init__(self) -> None:
        self._given_back = -inf  # loading the models has left gaps
        self._trim = getattr(_glibc(), "malloc_trim", None)

    def give_back(self) -> None:
        """Give it back, if the last time was long enough ago; else nothing."""
        if self._trim is not None and monotonic() - self._given_back > GIVE_BACK_EVERY_S:
            self._trim(0)
            self._given_back = monotonic()


def _set(options: dict[int, int], otherwise: str) -> None:
    mallopt = getattr(_glibc(), "mallopt", None)
    if mallopt is not None and not all(mallopt(option, value) for option, value in options.items()):
        logger.warning("mallopt refused a setting; %s", otherwise)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None
