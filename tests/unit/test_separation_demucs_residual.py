"""The residual branches with their second norm folded against demucs's own, and that they are in use."""

from __future__ import annotations

import pytest
import torch
from demucs.demucs import DConv
from tiny_demucs import SEGMENT, tiny_demucs, tiny_network

from bandscope_dagster.separation.demucs.fusion import fuse
from bandscope_dagster.separation.demucs.residual import pack_residuals

CHANNELS = 16


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def residual(**settings: object) -> DConv:
    """A block of two branches whose norms and scales differ by channel, as trained ones do."""
    block = DConv(CHANNELS, **({"init": 1.0} | settings)).requires_grad_(False)  # pyright: ignore[reportArgumentType]
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        if parameter.dim() == 1:
            parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return block


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "channels"])
@pytest.mark.parametrize("frames", [1, 2, 3, 200])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_branches_are_those_of_demucs_in_either_layout(tokens: bool, frames: int, offset: float) -> None:
    """An offset is what a variance as the difference of two large sums would get wrong."""
    block = residual()
    x = random(3, frames, CHANNELS).transpose(1, 2) + offset
    x = x if tokens else x.contiguous()
    expected = block(x.clone())
    fuse(block)  # pyright: ignore[reportArgumentType]
    pack_residuals(block)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(block(x.clone()), expected, rtol=1e-6, atol=1e-5)


def test_silence_is_normed_as_demucs_does() -> None:
    block = residual()
    expected = block(torch.zeros(2, CHANNELS, 50))
    fuse(block)  # pyright: ignore[reportArgumentType]
    pack_residuals(block)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(block(torch.zeros(2, CHANNELS, 50)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"norm": False}, {"gelu": False}, {"kernel": 5}, {"attn": True}, {"lstm": True}]
)
def test_branches_that_are_made_otherwise_stay_as_they_are(settings: dict[str, object]) -> None:
    block = residual(**settings)
    x = random(2, CHANNELS, 40)
    expected = block(x.clone())
    pack_residuals(block)  # pyright: ignore[reportArgumentType]
    assert not any("forward" in vars(layer) for layer in block.layers)
    torch.testing.assert_close(block(x.clone()), expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_network_with_packed_branches_gives_the_same_stems(batch: int) -> None:
    plain, packed = (tiny_network(3).requires_grad_(False) for _ in range(2))
    fuse(packed)
    pack_residuals(packed)
    segments = random(batch, 2, SEGMENT)
    with torch.inference_mode():
        torch.testing.assert_close(packed(segments), plain(segments), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("precision", "packed"), [("fp32", True), ("bf16", False)])
def test_the_cpu_packs_the_branches_in_single_precision_alone(precision: str, packed: bool) -> None:
    separator = tiny_demucs(precision=precision)
    blocks = [module for module in separator._networks[0].modules() if isinstance(module, DConv)]
    assert blocks
    for block in blocks:
        assert all(("forward" in vars(layer)) is packed for layer in block.layers)


def test_without_onednn_no_branch_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    block = residual()
    pack_residuals(block)  # pyright: ignore[reportArgumentType]
    assert not any("forward" in vars(layer) for layer in block.layers)
