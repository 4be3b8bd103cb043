"""SCNet and the RoFormers in chunks, against the published inference with pymss-core's networks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from long_forms import quick_or_long
from numpy.typing import NDArray
from safetensors.torch import save
from separated_songs import separate as separate_in_blocks
from separated_songs import separate_mixed
from tiny_chunked import (
    BAND_SPLIT,
    MEL,
    SCNET,
    TINY,
    checkpoint,
    ours,
    published_inference,
    random_state,
    theirs,
    tiny_chunked,
    tiny_model,
    whole_song,
)

from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.models.networks import Network
from bandscope_dagster.models.provision import add
from bandscope_dagster.separation.chunked import load_chunked, load_module, require_parameters
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions

Audio = NDArray[np.float32]

EXACT = 1e-5
separate = partial(separate_in_blocks, block=1000)  # frames, less than a chunk of the tiny networks
FAMILIES = pytest.mark.parametrize("network", TINY.values(), ids=TINY.keys())


def noise(frames: int, seed: int = 0) -> Audio:
    return np.random.default_rng(seed).uniform(-1, 1, (2, frames)).astype(np.float32)


def assert_equal(stems: Audio, wanted: Audio) -> None:
    np.testing.assert_allclose(stems, wanted, rtol=0, atol=EXACT)


def lengths(network: Network) -> st.SearchStrategy[int]:
    """Any length up to ten chunks; often one at which something begins or ends."""
    chunk, step = network.chunks.frames, network.chunks.frames // network.chunks.overlap
    border = chunk - step
    edges = [1, 2, chunk // 2, step, border, 2 * border, chunk, chunk + step]
    return st.integers(1, 10 * chunk) | st.sampled_from([edge + off for edge in edges for off in (0, 1)])


@st.composite
def networks_and_songs(draw: st.DrawFn) -> tuple[Network, list[int]]:
    network = draw(st.sampled_from([SCNET, BAND_SPLIT, MEL]))
    return network, draw(st.lists(lengths(network), min_size=1, max_size=5))


@settings(
    max_examples=quick_or_long(12, long=150), suppress_health_check=[HealthCheck.too_slow], deadline=None
)
@given(
    chosen=networks_and_songs(),
    block=st.integers(300, 6000),
    batch=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_any_length_block_batch_and_mix_of_songs_equals_the_published_inference(
    chosen: tuple[Network, list[int]], block: int, batch: int, seed: int
) -> None:
    network, frames = chosen
    songs = {f"song {index}": noise(length, seed + index) for index, length in enumerate(frames)}
    stems = separate_mixed(tiny_chunked(network, batch=batch), songs, block, seed)
    for name, mixture in songs.items():
        assert_equal(stems[name], published_inference(network, mixture))


@FAMILIES
def test_every_length_around_the_borders_of_short_songs_equals_the_published_inference(
    network: Network,
) -> None:
    chunk, step = network.chunks.frames, network.chunks.frames // network.chunks.overlap
    separator = tiny_chunked(network)
    for edge in (1, step, chunk // 2, chunk, 2 * (chunk - step), 2 * (chunk - step) + step):
        for frames in {max(1, edge - 1), edge, edge + 1}:
            mixture = noise(frames, frames)
            assert_equal(separate(separator, mixture), published_inference(network, mixture))


@FAMILIES
@pytest.mark.parametrize("largest", [1, 3])
def test_halving_when_memory_runs_out_separates_every_song(
    network: Network, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    separator = tiny_chunked(network, batch=4)
    whole, calls = separator.separate, list[tuple[int, int]]()

    def limited(segments: torch.Tensor) -> torch.Tensor:
        calls.append((len(segments), segments.shape[-1]))
        if len(segments) * segments.shape[-1] > largest * network.chunks.frames:
            raise torch.OutOfMemoryError("tiny memory")
        return whole(segments)

    monkeypatch.setattr(separator, "separate", limited)
    mixture = noise(5 * network.chunks.frames)
    assert_equal(separate(separator, mixture), published_inference(network, mixture))
    assert calls[0][0] == 4 and calls[-1][0] <= largest


@FAMILIES
def test_a_chunk_that_does_not_fit_alone_is_separated_in_parts(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    separator = tiny_chunked(network)
    assert [plan.length for plan in separator.shorter_plans], "the network takes shorter chunks"
    whole = separator.separate

    def limited(segments: torch.Tensor) -> torch.Tensor:
        if segments.shape[-1] == network.chunks.frames:
            raise torch.OutOfMemoryError("tiny memory")
        return whole(segments)

    monkeypatch.setattr(separator, "separate", limited)
    mixture = noise(network.chunks.frames + 100)
    length, overlap = network.chunks.frames, network.chunks.overlap

    def in_parts(chunk: torch.Tensor) -> torch.Tensor:
        return whole_song(theirs(network), chunk[0], length // 2, overlap)[None]

    stems = separate(separator, mixture)
    estimated = whole_song(in_parts, torch.from_numpy(mixture), length, overlap).numpy()
    assert_equal(stems[: len(network.estimated)], estimated)


@FAMILIES
def test_the_same_song_gives_the_same_bytes_whatever_the_blocks(network: Network) -> None:
    separator, mixture = tiny_chunked(network), noise(4 * network.chunks.frames)
    assert separate(separator, mixture).tobytes() == separate(separator, mixture, block=777).tobytes()


@FAMILIES
def test_silence_gives_finite_stems(network: Network) -> None:
    assert np.isfinite(separate(tiny_chunked(network), np.zeros((2, 9000), np.float32))).all()


def test_the_accompaniment_is_the_mixture_without_the_vocals() -> None:
    separator, mixture = tiny_chunked(MEL), noise(20_000)
    stems = separate(separator, mixture)
    assert separator.stems == ("vocals", "accompaniment")
    np.testing.assert_allclose(stems.sum(axis=0), mixture, rtol=0, atol=1e-6)
    assert separator.identity.params["accompaniment"] == "mixture - vocals"


def test_a_song_is_normalised_only_if_the_publisher_does_it() -> None:
    chosen = {
        name: model.network.chunks.normalised for name, model in load_inventory().items() if model.network
    }
    assert chosen == {
        "scnet-large": True,
        "scnet-xl-ihf": False,
        "bs-roformer": False,
        "bs-roformer-sw": False,
        "mel-band-roformer": False,
    }
    assert not tiny_chunked(SCNET).normalised


def test_a_normalised_song_has_stems_at_its_own_level() -> None:
    network = replace(SCNET, chunks=replace(SCNET.chunks, normalised=True))
    mixture = 0.1 * noise(8000) + np.float32(0.2)
    mono = mixture.mean(axis=0)
    normalisation = Normalisation(float(mono.mean()), float(mono.std()))
    stems = separate(tiny_chunked(network), mixture, normalisation=normalisation)
    scaled = (mixture - mono.mean()) / mono.std()
    assert_equal(stems, published_inference(network, scaled) * mono.std() + mono.mean())


def test_a_chosen_overlap_and_segment_change_the_chunks_and_the_lineage() -> None:
    separator = tiny_chunked(SCNET, overlap=0.5, segment_s=0.05)
    assert (separator.plan.length, separator.plan.stride) == (2205, 1102)
    params = separator.identity.params
    assert (params["segment_frames"], params["stride_frames"], params["fade_frames"]) == (2205, 1102, 220)
    stems = separate(separator, noise(10_000))
    assert stems.shape == (4, 2, 10_000) and np.isfinite(stems).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shifts": 1}, "BANDSCOPE_SHIFTS=1 has no meaning for tiny"),
        ({"overlap": 0.05}, "BANDSCOPE_OVERLAP=0.05 is too little for tiny.*set 0.1 or more"),
        ({"segment_s": 1.0}, r"BANDSCOPE_SEGMENT_S=1 does not fit tiny: it takes 0\.01 to 0\.05"),
        ({"segment_s": 0.001}, "BANDSCOPE_SEGMENT_S=0.001 does not fit tiny"),
        ({"precision": "tf32"}, "BANDSCOPE_PRECISION=tf32 needs a CUDA device"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        tiny_chunked(SCNET, **options)


@FAMILIES
def test_half_precision_is_near_and_is_another_result(network: Network) -> None:
    mixture = noise(3 * network.chunks.frames)
    exact = separate(tiny_chunked(network), mixture)
    half = separate(tiny_chunked(network, precision="bf16"), mixture)
    error = float(np.sum((half - exact) ** 2) / np.sum(exact**2))
    assert 1e-12 < error < 1e-2


@pytest.mark.parametrize("name", ["scnet-large", "scnet-xl-ihf"])
def test_scnet_is_refused_on_mps_before_its_weights_are_read(name: str, tmp_path) -> None:
    with pytest.raises(
        SettingsError, match=rf"{name} computes wrong stems on Apple's GPUs.*BANDSCOPE_DEVICE=cpu"
    ):
        load_chunked(load_inventory()[name], tmp_path, "mps", SeparationOptions())


@pytest.mark.parametrize("name", TINY)
def test_a_published_pickle_becomes_the_separator(name: str, tmp_path) -> None:
    content = checkpoint(TINY[name])
    (tmp_path / "copy.ckpt").write_bytes(content)
    model = tiny_model(name, content)
    (placed,) = add(model, [tmp_path / "copy.ckpt"], tmp_path / "models")
    assert placed.how == "converted"
    separator = load_chunked(model, tmp_path / "models" / name, "cpu", SeparationOptions())
    mixture = noise(3 * TINY[name].chunks.frames)
    assert_equal(separate(separator, mixture), published_inference(TINY[name], mixture))
    assert separator.identity.name == name and len(separator.identity.sha256) == 64


@FAMILIES
def test_a_loaded_network_has_the_bits_of_one_whose_random_weights_were_replaced(network: Network) -> None:
    state = {
        name: tensor.clone() for name, tensor in random_state(network).items()
    }  # each with its own memory
    loaded, replaced = load_module(network, save(state), "tiny").eval(), ours(network)
    buffers = dict(loaded.named_buffers())
    assert buffers.keys() == dict(replaced.named_buffers()).keys()
    assert all(torch.equal(buffers[name], wanted) for name, wanted in replaced.named_buffers())
    chunk = torch.from_numpy(noise(network.chunks.frames))[None]
    with torch.inference_mode():
        assert torch.equal(loaded(chunk), replaced(chunk))


def shapes(network: Network) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tiny_chunked(network)._module.state_dict().items()}


def test_weights_of_another_network_are_refused_with_what_differs() -> None:
    found = shapes(BAND_SPLIT)
    changed = {name: shape for name, shape in found.items() if not name.startswith("mask_estimators.3.")}
    changed |= {"ema.decay": (1,), "final_norm.gamma": (17,)}
    with pytest.raises(ModelFileError) as refused:
        require_parameters(tiny_chunked(BAND_SPLIT)._module, changed, "tiny")
    message = str(refused.value)
    assert f"of {len(found)} parameters, 20 missing (mask_estimators.3.to_freqs.0.0.0.bias, " in message
    assert "1 unexpected (ema.decay)" in message
    assert "1 of another shape (final_norm.gamma is (17,) instead of (16,))" in message


def test_a_file_of_another_network_is_refused_when_it_is_loaded(tmp_path) -> None:
    content = checkpoint(SCNET)
    (tmp_path / "copy.ckpt").write_bytes(content)
    list(add(tiny_model("scnet-xl-ihf", content), [tmp_path / "copy.ckpt"], tmp_path))
    weights = (tmp_path / "scnet-xl-ihf" / "scnet-xl-ihf.safetensors").read_bytes()
    with pytest.raises(ModelFileError, match="of another network than the inventory describes"):
        load_module(MEL, weights, "tiny")
