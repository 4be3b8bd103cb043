import torch
from demucs.transformer import LayerScale
from tiny_demucs import SEGMENT, tiny_network

from bandscope_dagster.separation.demucs.fusion import fuse


def with_scales_that_count() -> torch.nn.Module:
    """A fresh network's scales are near zero, and would hide an error in what they scale."""
    network = tiny_network(3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, LayerScale):
                module.scale.copy_(torch.rand(module.scale.shape, generator=generator) + 0.5)
    return network


def test_a_fused_network_gives_the_same_stems() -> None:
    segments = torch.randn((2, 2, SEGMENT), generator=torch.Generator().manual_seed(1))
    plain, fused = with_scales_that_count(), with_scales_that_count()
    fuse(fused)
    with torch.inference_mode():
        torch.testing.assert_close(fused(segments), plain(segments), rtol=0, atol=5e-6)


def test_no_scale_is_left_to_be_applied() -> None:
    network = with_scales_that_count()
    assert any(isinstance(module, LayerScale) for module in network.modules())
    fuse(network)
    assert not any(isinstance(module, LayerScale) for module in network.modules())
