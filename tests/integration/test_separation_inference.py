"""Torch's settings for inference on a CPU: memory layout, attention and precision."""

import pytest
import torch
from tiny_demucs import tiny_network

from bandscope_dagster.separation.inference import inference, prepare_network


def test_a_network_on_the_cpu_uses_fused_attention_and_the_fastest_layout() -> None:
    network = prepare_network(tiny_network(), "cpu")
    assert not torch.backends.mha.get_fastpath_enabled()
    weights = [w for w in network.parameters() if w.ndim == 4 and w.shape[1] > 1 and w.shape[2] > 1]
    assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    assert not network.training and not any(w.requires_grad for w in network.parameters())


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_layers_compute_in_the_precision_that_is_set(precision, expected: torch.dtype) -> None:
    matrix = torch.ones((4, 4))
    with inference(precision, "cpu"):
        assert (matrix @ matrix).dtype == expected
        assert torch.is_inference_mode_enabled()
    assert (matrix @ matrix).dtype == torch.float32


def test_tf32_is_off_again_afterwards() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    with inference("tf32", "cpu"):
        assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32 == before
