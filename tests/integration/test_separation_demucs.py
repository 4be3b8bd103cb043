"""HTDemucs against demucs's own ``apply_model``, on tiny networks of demucs's own class."""

import hashlib
import io
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import demucs
import numpy as np
import pytest
import torch
import yaml
from audio_files import LIMITS, encode
from demucs.htdemucs import HTDemucs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from long_forms import quick_or_long
from numpy.typing import NDArray
from separated_songs import separate, separate_mixed
from tiny_demucs import (
    FOUR,
    SEGMENT,
    SIX,
    reference,
    safetensors_file,
    tiny_demucs,
    tiny_network,
)

from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.levels import SongMeter
from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.inventory import Model, ModelFile, find_model
from bandscope_dagster.separation.demucs.model import BAGS, MAX_SHIFT, Demucs, load_demucs
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions

Audio = NDArray[np.float32]

BAGGED = ((1.0, 0.0, 0.0, 0.5), (0.0, 1.0, 0.0, 0.5), (0.0, 0.0, 2.0, 3.0))


@cache
def networks() -> tuple[HTDemucs, ...]:
    """Networks for the reference: a separator changes those that it gets."""
    return tuple(tiny_network(seed) for seed in range(3))


@cache
def separator_of(bag: bool, batch: int, onednn: str) -> Demucs:
    """A separator with one network, or with three and their weights."""
    return tiny_demucs(
        *(tiny_network(seed) for seed in range(3 if bag else 1)),
        weights=BAGGED if bag else None,
        batch=batch,
        onednn=onednn,
    )


EXACT = 1e-5


def noise(frames: int, seed: int = 0) -> Audio:
    return np.random.default_rng(seed).uniform(-1, 1, (2, frames)).astype(np.float32)


def expected(mixture: Audio, *networks: Any, **options: Any) -> Audio:
    return reference(torch.from_numpy(mixture), *networks, **options).numpy()


def assert_equal(stems: Audio, wanted: Audio) -> None:
    np.testing.assert_allclose(stems, wanted, rtol=0, atol=EXACT)


LENGTHS = st.one_of(
    st.integers(1, 10 * SEGMENT),
    st.sampled_from([1, 2, SEGMENT - 1, SEGMENT, SEGMENT + 1, SEGMENT * 3 // 4, SEGMENT * 3 // 4 + 1]),
)


@settings(max_examples=quick_or_long(5, long=40), suppress_health_check=[HealthCheck.too_slow])
@given(
    lengths=st.lists(LENGTHS, min_size=1, max_size=5),
    block=st.integers(500, 3 * SEGMENT),
    batch=st.integers(1, 4),
    bag=st.booleans(),
    onednn=st.sampled_from(["on", "off"]),
    seed=st.integers(0, 100),
)
def test_any_length_block_batch_and_mix_of_songs_equals_apply_model(
    lengths: list[int], block: int, batch: int, bag: bool, onednn: str, seed: int
) -> None:
    nets, weights = (networks(), BAGGED) if bag else (networks()[:1], None)
    songs = {f"song {index}": noise(frames, seed + index) for index, frames in enumerate(lengths)}
    stems = separate_mixed(separator_of(bag, batch, onednn), songs, block, seed)
    for name, mixture in songs.items():
        assert_equal(stems[name], expected(mixture, *nets, weights=weights))


def test_the_model_of_six_stems_equals_apply_model() -> None:
    separator = tiny_demucs(tiny_network(7, SIX))
    assert separator.stems == SIX
    mixture = noise(3 * SEGMENT + 17)
    assert_equal(separate(separator, mixture), expected(mixture, tiny_network(7, SIX)))


def test_one_sample() -> None:
    mixture = noise(1)
    assert_equal(separate(tiny_demucs(), mixture), expected(mixture))


def test_exactly_one_segment() -> None:
    mixture = noise(SEGMENT)
    assert_equal(separate(tiny_demucs(), mixture), expected(mixture))


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, pytest.param(0.9, marks=pytest.mark.long)])
def test_any_overlap_equals_apply_model(overlap: float) -> None:
    mixture = noise(4 * SEGMENT + 5)
    assert_equal(separate(tiny_demucs(overlap=overlap), mixture), expected(mixture, overlap=overlap))


@pytest.mark.parametrize("shifts", [1, 2, pytest.param(5, marks=pytest.mark.long)])
def test_shifted_passes_equal_apply_model_with_the_same_shifts(
    shifts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    separator = tiny_demucs(tiny_network(segment=2**16), shifts=shifts)
    leads = separator.plan.leads
    assert len(set(leads)) == shifts and all(0 <= lead <= MAX_SHIFT for lead in leads)
    mixture = noise(200_000)
    offsets = iter([MAX_SHIFT - lead for lead in leads])  # demucs counts from the other end
    monkeypatch.setattr(random, "randint", lambda low, high: next(offsets))
    wanted = expected(mixture, tiny_network(segment=2**16), shifts=shifts)
    assert_equal(separate(separator, mixture), wanted)


def test_a_shorter_segment_equals_a_network_of_that_segment() -> None:
    mixture = noise(200_000)
    separator = tiny_demucs(tiny_network(segment=2 * 44_100), segment_s=1.0)
    assert_equal(separate(separator, mixture), expected(mixture, tiny_network(segment=44_100)))


@pytest.mark.parametrize(
    ("channels", "rate", "layout"),
    [
        (1, 44_100, "mono"),
        (6, 44_100, "5.1"),
        (2, 22_050, "stereo"),
        (2, 48_000, "stereo"),
        (2, 96_000, "stereo"),
    ],
    ids=["mono", "5.1", "22.05 kHz", "48 kHz", "96 kHz"],
)
def test_a_file_of_any_layout_is_separated_as_demucs_does_with_what_was_decoded(
    channels: int, rate: int, layout: str
) -> None:
    seconds = 1.3
    samples = 0.3 * np.random.default_rng(rate + channels).standard_normal(
        (channels, round(seconds * 44_100))
    )
    content = encode(samples.astype(np.float32), "wav", "pcm_f32le", rate=rate, layout=layout)
    mixture = np.concatenate(list(decode(io.BytesIO(content), LIMITS)), axis=1)
    assert mixture.shape == (2, pytest.approx(seconds * 44_100, abs=2))
    assert_equal(separate(tiny_demucs(), mixture, of_song(mixture)), as_demucs_does(mixture))


def of_song(mixture: Audio) -> Normalisation:
    """The normalisation as the pipeline computes it, from the measures that ``songs`` stores."""
    measure = SongMeter()
    for start in range(0, mixture.shape[1], 10_000):
        measure.push(mixture[:, start : start + 10_000])
    stats = measure.finish()
    return Normalisation.of_song(stats.mono_mean, stats.mono_std, stats.rms_dbfs)


def as_demucs_does(mixture: Audio) -> Audio:
    """demucs/api.py, Separator.separate_tensor: normalised by the mono mix of the whole song."""
    mono = torch.from_numpy(mixture).mean(0)
    mean, std = mono.mean(), mono.std() + 1e-8
    return (reference((torch.from_numpy(mixture) - mean) / std) * std + mean).numpy()


def test_a_song_with_an_offset_is_normalised_as_demucs_does() -> None:
    mixture = 0.05 * noise(30_000) + np.float32(0.3)
    assert_equal(separate(tiny_demucs(), mixture, of_song(mixture)), as_demucs_does(mixture))


def test_silence_gives_silent_stems() -> None:
    mixture = np.zeros((2, 3 * SEGMENT), np.float32)
    stems = separate(tiny_demucs(), mixture, of_song(mixture))
    assert np.isfinite(stems).all()
    assert np.abs(stems).max() < EXACT


def test_near_silence_gives_stems_of_its_own_level() -> None:
    mixture = np.float32(1e-6) * noise(3 * SEGMENT)
    stems = separate(tiny_demucs(), mixture, of_song(mixture))
    assert 0 < np.abs(stems).max() < 1e-4


def test_antiphase_is_not_blown_up() -> None:
    left = 0.3 * noise(3 * SEGMENT)[:1]
    mixture = np.concatenate([left, -left])
    normalisation = of_song(mixture)
    assert normalisation.scale == pytest.approx(float(np.sqrt(np.mean(mixture**2))), rel=1e-3)
    stems = separate(tiny_demucs(), mixture, normalisation)
    assert np.isfinite(stems).all()
    level = normalisation.scale
    assert_equal(stems, (reference(torch.from_numpy(mixture) / level) * level).numpy())


def test_the_same_song_gives_the_same_bytes_whatever_the_blocks() -> None:
    separator = tiny_demucs()
    mixture = noise(100_000)
    assert separate(separator, mixture).tobytes() == separate(separator, mixture, block=777).tobytes()


def test_segment_and_batch_reach_the_network() -> None:
    network = tiny_network(segment=2 * 44_100)
    seen: list[tuple[int, ...]] = []
    network.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    separate(tiny_demucs(network, segment_s=1.0, batch=3), noise(5 * 44_100))
    hop = 1024 // 4
    assert {shape[-1] for shape in seen} == {-(-44_100 // hop)}  # STFT frames: of 1 s, not of 2 s
    assert [shape[0] for shape in seen] == [3, 3, 1]


def test_without_settings_the_segment_is_that_of_training_and_the_batch_one_on_a_cpu() -> None:
    separator = tiny_demucs()
    assert (separator.plan.length, separator.batch) == (SEGMENT, 1)
    assert separator.plan.stride == int(0.75 * SEGMENT)
    assert separator.identity.params == {
        "segment_frames": SEGMENT,
        "overlap": 0.25,
        "shifts": 0,
        "precision": "fp32",
    }


def test_a_longer_segment_than_the_network_was_trained_for_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"BANDSCOPE_SEGMENT_S=1 is longer than the 0\.18\d+ s that tiny"):
        tiny_demucs(segment_s=1.0)


def test_tf32_needs_cuda() -> None:
    with pytest.raises(SettingsError, match="BANDSCOPE_PRECISION=tf32 needs a CUDA device"):
        tiny_demucs(precision="tf32")


def test_half_precision_is_near_and_is_another_result() -> None:
    mixture = noise(3 * SEGMENT)
    exact = separate(tiny_demucs(), mixture)
    half = separate(tiny_demucs(precision="bf16"), mixture)
    error = float(np.sum((half - exact) ** 2) / np.sum(exact**2))
    assert 1e-12 < error < 1e-3
    assert tiny_demucs(precision="bf16").identity.params["precision"] == "bf16"


@pytest.mark.parametrize("name", ["htdemucs", "htdemucs_ft", "htdemucs_6s"])
def test_the_bags_are_those_of_the_demucs_package(name: str) -> None:
    bag = yaml.safe_load((Path(demucs.__file__).parent / "remote" / f"{name}.yaml").read_text())
    files = [file.name for file in find_model(name).files]
    assert files == [f"{signature}.safetensors" for signature in bag["models"]]
    assert [list(row) for row in BAGS.get(name, ())] == bag.get("weights", [])


def model_on_disk(folder: Path, contents: Sequence[bytes]) -> Model:
    """An inventory entry for these files, which are written to ``folder``."""
    files = []
    for index, content in enumerate(contents):
        name = f"{index}.safetensors"
        (folder / name).write_bytes(content)
        files.append(ModelFile(name, len(content), hashlib.sha256(content).hexdigest()))
    return replace(find_model("htdemucs"), name="tiny", files=tuple(files))


def test_verified_files_become_the_separator(tmp_path: Path) -> None:
    model = model_on_disk(tmp_path, [safetensors_file(tiny_network(3))])
    separator = load_demucs(model, tmp_path, "cpu", SeparationOptions())
    mixture = noise(2 * SEGMENT)
    assert separator.stems == FOUR
    assert separator.identity.name == "tiny" and separator.identity.sha256 == model.files[0].sha256
    assert_equal(separate(separator, mixture), expected(mixture, tiny_network(3)))


def counted_calls(separator: Demucs) -> list[int]:
    """The numbers of the separator's networks, appended whenever one of them runs."""
    calls: list[int] = []
    for number, network in enumerate(separator._networks):
        network.register_forward_hook(lambda *_, number=number: calls.append(number))
    return calls


@pytest.mark.parametrize("stems", [("vocals",), ("drums", "other")])
def test_a_bag_loads_and_runs_only_the_networks_that_the_chosen_stems_need(
    tmp_path: Path, stems: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BAGS, "tiny", BAGS["htdemucs_ft"])  # pyright: ignore[reportArgumentType]
    model = model_on_disk(tmp_path, [safetensors_file(tiny_network(seed)) for seed in range(4)])
    mixture = noise(SEGMENT)
    whole = load_demucs(model, tmp_path, "cpu", SeparationOptions())
    chosen = load_demucs(model, tmp_path, "cpu", SeparationOptions(stems=stems))
    calls = counted_calls(chosen)
    found = separate(chosen, mixture)
    rows = [FOUR.index(stem) for stem in stems]
    assert chosen.stems == stems and len(chosen._networks) == len(stems)
    assert np.array_equal(found, separate(whole, mixture)[rows])
    assert [calls.count(number) for number in range(4)] == [len(calls) // len(stems)] * len(stems) + [0] * (
        4 - len(stems)
    )
    assert chosen.identity.sha256 == whole.identity.sha256


def test_one_network_returns_only_the_chosen_stems() -> None:
    mixture = noise(2 * SEGMENT)
    found = separate(tiny_demucs(stems=("drums", "vocals")), mixture)
    assert np.array_equal(found, separate(tiny_demucs(), mixture)[[0, 3]])


def test_weights_with_other_stems_than_the_inventory_are_refused(tmp_path: Path) -> None:
    model = model_on_disk(tmp_path, [safetensors_file(tiny_network(0, SIX))])
    with pytest.raises(ModelFileError, match="have the stems drums, bass, other, vocals, guitar, piano; the"):
        load_demucs(model, tmp_path, "cpu", SeparationOptions())


class Parsed(Exception):
    """A file was parsed."""


@pytest.mark.parametrize("damage", ["one bit", "cut off", "missing"])
def test_a_file_of_another_digest_is_refused_before_anything_of_it_is_parsed(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = safetensors_file(tiny_network())
    model = model_on_disk(tmp_path, [content])
    file = tmp_path / model.files[0].name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "one bit" else b""))

    def parse(*_: object) -> None:
        raise Parsed

    monkeypatch.setattr("bandscope_dagster.separation.demucs.model.build_network", parse)
    monkeypatch.setattr("safetensors.torch.load", parse)
    with pytest.raises(ModelFileError, match=model.files[0].sha256) as raised:
        load_demucs(model, tmp_path, "cpu", SeparationOptions())
    assert "bandscope models pull tiny" in str(raised.value)


@pytest.mark.parametrize("klass", ["os.system", "demucs.solver.Solver", "demucs.hdemucs.HDemucs", None])
def test_a_file_that_names_another_class_is_refused_before_its_tensors_are_read(
    tmp_path: Path, klass: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = safetensors_file(tiny_network(), klass or "")
    model = model_on_disk(tmp_path, [content])  # its digest is right

    def parse(*_: object) -> None:
        raise Parsed

    monkeypatch.setattr("safetensors.torch.load", parse)
    with pytest.raises(ModelFileError, match=r"only demucs\.htdemucs\.HTDemucs is supported"):
        load_demucs(model, tmp_path, "cpu", SeparationOptions())


def test_nothing_of_a_model_is_imported_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """demucs/hf.py imports any module that the file names."""
    monkeypatch.setattr("importlib.import_module", pytest.fail)
    model = model_on_disk(tmp_path, [safetensors_file(tiny_network(), "antigravity.fly")])
    with pytest.raises(ModelFileError, match=r"antigravity\.fly"):
        load_demucs(model, tmp_path, "cpu", SeparationOptions())
