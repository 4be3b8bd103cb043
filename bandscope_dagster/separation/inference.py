"""Torch's settings for inference: precision, memory layout and the attention of a network on a device."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from bandscope_dagster.allocator import keep_freed_memory
from bandscope_dagster.separation.options import Precision

if TYPE_CHECKING:
    from torch.nn import Module

Network = TypeVar("Network", bound="Module")


def prepare_network(network: Network, device: str) -> Network:
    """Move the network to ``device``, in evaluation mode and in the layout that is fastest there."""
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
def inference(precision: Precision, device: str) -> Generator[None]:
    """Run the block's networks without gradients, in ``precision`` on ``device``.

    fp32 is exact. tf32 rounds the factors of CUDA's products to 10 bits. bf16 and fp16 compute in half precision the
    layers that tolerate it.
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
