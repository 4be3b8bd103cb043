"""Our RoFormers against pymss-core's: the bands, the names of the parameters, and the output."""

from dataclasses import replace

import pytest
import torch
from pymss_core.modules.bs_roformer import MelBandRoformer
from tiny_chunked import BAND_SPLIT, MEL, ours, pymss_network, theirs

from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.networks import RoformerNetwork
from bandscope_dagster.separation.chunked import build_module
from bandscope_dagster.separation.roformer.bands import frequencies_of_bands, mel_bands

SIX = replace(BAND_SPLIT, stems=("a", "b", "c", "d", "e", "f"), mask_layers=2, mask_expansion=4, depth=3)
TWO_OF_MEL = replace(MEL, stems=("vocals", "other"), mask_layers=1, depth=2)


@pytest.mark.parametrize(
    "network", [BAND_SPLIT, SIX, MEL, TWO_OF_MEL], ids=["bands", "six stems", "mel", "mel of two"]
)
@pytest.mark.parametrize("hops", [8, 33])
def test_the_output_equals_that_of_pymss(network: RoformerNetwork, hops: int) -> None:
    audio = torch.randn((3, 2, hops * network.hop), generator=torch.Generator().manual_seed(hops))
    with torch.inference_mode():
        found = ours(network)(audio)
    wanted = theirs(network)(audio)
    assert found.shape == (3, len(network.estimated), 2, hops * network.hop)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * max(1, float(wanted.abs().max())))


def test_an_input_that_is_no_multiple_of_the_hop_keeps_its_length() -> None:
    with torch.inference_mode():
        assert ours(MEL)(torch.randn(1, 2, 5000)).shape[-1] == 5000


@pytest.mark.parametrize("name", ["bs-roformer", "bs-roformer-sw", "mel-band-roformer"])
def test_the_parameters_of_a_published_network_have_the_published_names_and_shapes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random values for a gigabyte of weights take 20 s.
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda _: None)
    network = find_model(name).network
    assert isinstance(network, RoformerNetwork)
    with torch.device("meta"):
        found = {key: tuple(tensor.shape) for key, tensor in build_module(network).state_dict().items()}
    wanted = {key: tuple(tensor.shape) for key, tensor in pymss_network(network).state_dict().items()}
    assert found == wanted
    # A pickle has four bytes for each value, and some hundred for each name.
    values = sum(torch.Size(shape).numel() for key, shape in found.items() if not key.endswith("freqs"))
    legacy = find_model(name).files[0].legacy
    assert legacy is not None and 0 < legacy.bytes - 4 * values < 1000 * len(found)


def test_the_bands_of_the_mel_scale_are_those_of_pymss() -> None:
    theirs_ = MelBandRoformer(dim=8, depth=1, stereo=True, stft_n_fft=2048, mask_estimator_depth=1)
    counts = [int(count) for count in theirs_.num_freqs_per_band]
    assert [len(band) for band in mel_bands(2048, 60)] == counts
    assert [4 * count for count in counts] == list(theirs_.band_split.dim_inputs)


def test_every_frequency_is_in_a_band_of_the_mel_scale() -> None:
    assert sorted({frequency for band in mel_bands(2048, 60) for frequency in band}) == list(range(1025))


def test_bands_without_a_frequency_are_refused() -> None:
    with pytest.raises(ValueError, match="60 mel bands are too narrow for windows of 128 frames"):
        mel_bands(128, 60)


def test_split_bands_have_every_frequency_once() -> None:
    bands = frequencies_of_bands(BAND_SPLIT)
    assert [len(band) for band in bands] == list(BAND_SPLIT.bands)
    assert [frequency for band in bands for frequency in band] == list(range(33))
