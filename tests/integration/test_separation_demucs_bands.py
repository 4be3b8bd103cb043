"""A network whose widest layers are computed in bands equals the unchanged network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from demucs.hdemucs import HDecLayer, HEncLayer
from demucs.htdemucs import HTDemucs
from tiny_demucs import SEGMENT, tiny_demucs, tiny_network
from torch import nn

from bandscope_dagster.separation.demucs import bands
from bandscope_dagster.separation.demucs.bands import compute_in_bands


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def largest_input(layers: nn.ModuleList, run: Any) -> int:
    """The most rows in one input of a convolution in ``layers``."""
    seen: list[int] = []
    convolutions = [module for module in layers.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        convolution.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[2]))
    run()
    return max(seen)


@pytest.mark.parametrize("rows", [2, 7, 64, 127, 500])
@pytest.mark.parametrize("batch", [1, 3])
def test_bands_of_any_height_give_the_same_stems(
    rows: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "ROWS", rows)
    plain, banded = tiny_network(3), tiny_network(3)
    compute_in_bands(banded)
    segments = random(batch, 2, SEGMENT)
    with torch.inference_mode():
        torch.testing.assert_close(banded(segments), plain(segments), rtol=0, atol=1e-5)


def test_layers_without_neighbours_or_of_other_kinds_give_the_same_stems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Demucs can build layers with a wider context, with norms over all rows, and without a second convolution."""
    monkeypatch.setattr(bands, "ROWS", 8)
    shape: dict[str, Any] = {"channels": 8, "nfft": 1024, "t_layers": 0, "segment": 1}
    for kind in ({"context": 0}, {"context": 2, "context_enc": 1}, {"norm_starts": 0}, {"rewrite": False}):
        plain, banded = (
            HTDemucs(["a", "b"], norm_groups=2, **shape, **kind).eval().requires_grad_(False)
            for _ in range(2)
        )
        banded.load_state_dict(plain.state_dict())
        plain.use_train_segment = banded.use_train_segment = False
        compute_in_bands(banded)
        segments = random(1, 2, SEGMENT)
        with torch.inference_mode():
            torch.testing.assert_close(banded(segments), plain(segments), rtol=0, atol=1e-5)


def test_the_cpu_never_computes_more_than_a_band_at_once() -> None:
    separator = tiny_demucs()
    network = separator._networks[0]
    assert isinstance(network.encoder[0], HEncLayer) and isinstance(network.decoder[-1], HDecLayer)
    stride, kernel = 4, 8

    def run() -> None:
        separator.separate(random(1, 2, SEGMENT))

    assert largest_input(network.encoder, run) == (bands.ROWS - 1) * stride + kernel < 512
    assert largest_input(network.decoder, run) <= bands.ROWS + 4 < 128
