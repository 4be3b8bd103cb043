"""How the networks compute: precision, memory layout, and what makes torch faster on a CPU with the same result."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from bandscope_dagster.separation.options import Precision

if TYPE_CHECKING:
    from torch.nn import Module

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound="Module")

# Numbers of glibc's malloc.h, and the values with which torch's large tensors stay in the process.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
KEEP_BYTES: Final = 2**31 - 1  # the largest int: free memory is not given back to the system
GROW_BYTES: Final = 256 * 2**20  # by which the heap grows


@cache
def keep_freed_memory() -> None:
    """Have glibc reuse the memory of freed tensors, instead of giving each back to the system and faulting it in anew.

    A segment of HTDemucs otherwise costs half a million page faults and a sixth of the CPU time. It counts for
    tensors allocated from now on, in this process; where there is no glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    options = (
        (M_MMAP_MAX, 0),
        (M_TRIM_THRESHOLD, KEEP_BYTES),
        (M_TOP_PAD, GROW_BYTES),
        (M_ARENA_MAX, 1),  # or every thread that decodes or encodes keeps freed memory of its own
    )
    if not all(mallopt(option, value) for option, value in options):
        logger.warning("mallopt refused a setting; separation on the CPU takes a sixth more time")


def for_inference(network: Network, device: str) -> Network:
    """The network on ``device``, in evaluation mode and in the layout that is fastest there."""
    import torch

    network.eval().requires_grad_(False)
    if device != "cpu":
        return network.to(device)
    keep_freed_memory()
    # The fast path of torch's own encoder layers computes attention in three steps; without it the layers call
    # scaled_dot_product_attention, which never holds the whole attention matrix.
    torch.backends.mha.set_fastpath_enabled(False)
    return network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


@contextmanager
def computing(precision: Precision, device: str) -> Generator[None]:
    """Inference in ``precision`` on ``device``.

    fp32 is exact; tf32 rounds what CUDA multiplies to 10 bits; bf16 and fp16 compute the layers that bear it in half
    precision.
    """
    import torch

    kind = device.partition(":")[0]
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    tf32 = precision == "tf32"
    with (
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32),
        torch.autocast(kind, dtype=half, enabled=half is not None),
    ):
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
