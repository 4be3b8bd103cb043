"""A preset of three models through the whole graph: tiny networks of demucs's own class, and Spleeter."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from instances import new_instance
from known_models import Audio, noise
from platforms import Platform, local_settings
from tiny_demucs import FOUR, SEGMENT, safetensors_file, tiny_network

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.conversions import Conversion, record_conversion
from bandscope_dagster.models.inventory import Model, ModelFile, PublishedFile, find_model
from bandscope_dagster.models.store import model_folder
from bandscope_dagster.orchestration.resources import Models
from bandscope_dagster.pipeline import stream
from bandscope_dagster.pipeline.model_turns import ModelThread
from bandscope_dagster.separation import registry
from bandscope_dagster.separation.demucs.model import Demucs
from bandscope_dagster.separation.ensemble import Ensemble, streaming_of
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.registry import load_separator
from bandscope_dagster.separation.speed import measure_speed
from bandscope_dagster.separation.streaming import Separated
from bandscope_dagster.songs.provenance import trace

PRESET = """
name = "three"

[stems]
vocals = ["htdemucs", "htdemucs_ft", "spleeter-2stems"]
drums = ["htdemucs", "htdemucs_ft"]
other = "rest"
"""
SECONDS = (0.9, 0.6)
PICKLE = PublishedFile("tiny.th", 1, "1" * 64)


@dataclass
class Tiny:
    """The models folder, and the preset's file."""

    folder: Path
    preset: str

    def load(self, name: str, stems: tuple[str, ...] | None = None) -> Any:
        return load_separator(name, self.folder, "cpu", SeparationOptions(stems=stems))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Tiny networks in the place of htdemucs and of the four of htdemucs_ft, verified and loaded by the product."""
    listed: dict[str, Model] = {}
    for name, seeds in (("htdemucs", [9]), ("htdemucs_ft", [1, 2, 3, 4])):
        own = find_model(name)
        folder = model_folder(own, tmp_path / "models")
        folder.mkdir(parents=True)
        files: list[ModelFile] = []
        for seed, file in zip(seeds, own.files, strict=True):
            # Another length than the other model's, so that its segments begin elsewhere.
            content = safetensors_file(tiny_network(seed, segment=SEGMENT if seed == 9 else 6000))
            (folder / file.name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            if name == "htdemucs":  # as SCNet and the RoFormers, it was published as a pickle alone
                files.append(ModelFile(file.name, None, None, PICKLE))
                conversion = Conversion(len(content), digest, PICKLE.sha256)
                record_conversion(files[-1], conversion, folder, folder / "pending")
            else:
                files.append(ModelFile(file.name, len(content), digest))
        listed[name] = replace(own, files=tuple(files))
    monkeypatch.setattr(registry, "find_model", lambda name: listed.get(name) or find_model(name))
    path = tmp_path / "three.toml"
    path.write_text(PRESET)
    return Tiny(tmp_path / "models", str(path))


def networks(separator: Any) -> Iterator[tuple[str, Any]]:
    """The networks of a separator's members, each with a name of its own."""
    for member in separator.members:
        inner = getattr(member, "_separator", member)
        if isinstance(inner, Demucs):
            yield from ((f"{member.identity.name} {n}", network) for n, network in enumerate(inner._networks))


def alone(separator: Any, samples: Audio, normalisation: Normalisation) -> Mapping[str, Audio]:
    streaming = streaming_of(separator)
    streaming.open("a", normalisation)
    results = [*streaming.push("a", samples), *streaming.finish("a"), *streaming.flush()]
    pieces = [result.stems for result in results if isinstance(result, Separated)]
    return dict(zip(separator.stems, np.concatenate(pieces, axis=-1), strict=True))


def expected(tiny: Tiny, samples: Audio, normalisation: Normalisation) -> dict[str, Audio]:
    """The recipe, from each model alone."""
    found = {
        name: alone(tiny.load(name), samples, normalisation)
        for name in ("htdemucs", "htdemucs_ft", "spleeter-2stems")
    }
    vocals = sum((each["vocals"] for each in found.values()), np.zeros_like(samples)) / 3
    drums = (found["htdemucs"]["drums"] + found["htdemucs_ft"]["drums"]) / 2
    return {"vocals": vocals, "drums": drums, "other": samples - vocals - drums}


def test_a_preset_equals_its_models_alone_and_runs_no_network_twice(tiny: Tiny) -> None:
    separator = tiny.load(tiny.preset)
    samples = noise(0.9)
    level = Normalisation(0.01, 0.3)
    calls: Counter[str] = Counter()
    for name, network in networks(separator):
        network.register_forward_hook(lambda *_, name=name: calls.update([name]))
    found = alone(separator, samples, level)
    for stem, wanted in expected(tiny, samples, level).items():
        np.testing.assert_allclose(found[stem], wanted, rtol=0, atol=1e-6)
    strides = {"htdemucs": SEGMENT * 3 // 4, "htdemucs_ft": 4500}
    segments = {name: -(-samples.shape[1] // stride) for name, stride in strides.items()}
    assert calls == {
        "htdemucs 0": segments["htdemucs"],
        "htdemucs_ft 0": segments["htdemucs_ft"],  # of its four networks the two for vocals and drums
        "htdemucs_ft 1": segments["htdemucs_ft"],
    }


def test_the_lineage_has_every_model_and_every_file(tiny: Tiny) -> None:
    identity = tiny.load(tiny.preset).identity
    assert identity.name == "three"
    assert identity.params["preset"] == {
        "vocals": ["htdemucs", "htdemucs_ft", "spleeter-2stems"],
        "drums": ["htdemucs", "htdemucs_ft"],
        "other": "rest",
    }
    models = identity.params["models"]
    assert list(models) == ["htdemucs", "htdemucs_ft", "spleeter-2stems"]
    for name, model in models.items():
        found = registry.find_model(name)
        paths = [model_folder(found, tiny.folder) / file.name for file in found.files]
        assert model["files"] == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        assert (
            model["params"]
            == tiny.load(
                name, ("drums", "vocals") if name != "spleeter-2stems" else ("vocals",)
            ).identity.params
        )
    assert "stems" not in identity.params
    assert json.loads(json.dumps(identity.params)) == identity.params


def test_an_option_that_one_model_lacks_is_refused_with_model_and_preset(tiny: Tiny) -> None:
    with pytest.raises(
        SettingsError, match=r"^preset three: BANDSCOPE_OVERLAP=0.5 has no meaning for spleeter-2stems"
    ):
        load_separator(tiny.preset, tiny.folder, "cpu", SeparationOptions(overlap=0.5))


def test_only_the_models_of_the_chosen_stems_are_loaded(tiny: Tiny) -> None:
    chosen = tiny.load(tiny.preset, ("drums",))
    assert [member.identity.name for member in chosen.members] == ["htdemucs", "htdemucs_ft"]
    assert [name for name, _ in networks(chosen)] == ["htdemucs 0", "htdemucs_ft 0"]
    assert chosen.identity.params["stems"] == ["drums"]
    samples, level = noise(0.2), Normalisation()
    wanted = expected(tiny, samples, level)
    np.testing.assert_allclose(alone(chosen, samples, level)["drums"], wanted["drums"], rtol=0, atol=1e-6)
    rest = tiny.load(tiny.preset, ("other",))
    assert len(rest.members) == 3 and rest.stems == ("other",)
    found = alone(rest, samples, level)["other"]
    np.testing.assert_allclose(found, wanted["other"], rtol=0, atol=1e-6)


def test_an_ensemble_takes_turns_and_has_a_speed(tiny: Tiny) -> None:
    separator = tiny.load(tiny.preset)
    assert measure_speed(separator) == sum(measure_speed(member) for member in separator.members) > 0
    in_turns = ModelThread().separator(separator)
    assert isinstance(in_turns, Ensemble)
    samples, level = noise(0.2), Normalisation()
    found = alone(in_turns, samples, level)
    for stem, wanted in alone(separator, samples, level).items():
        assert np.array_equal(found[stem], wanted)


def song_file(samples: Audio) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples.T, 44_100, "FLOAT", format="WAV")
    return file.getvalue()


def test_songs_go_through_the_whole_graph_and_are_decoded_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    real = stream.caged
    monkeypatch.setattr(stream, "caged", lambda *given: decoded.append(1) or real(*given))
    settings = local_settings(
        tmp_path / "store", separator=tiny.preset, models_folder=str(tiny.folder), flac_bits=24
    )
    assert isinstance(Models(settings).separator(), Ensemble)
    with new_instance() as instance:
        platform = Platform(settings, instance)
        songs = {f"{n}.wav": noise(seconds, n) for n, seconds in enumerate(SECONDS)}
        ids = platform.upload({name: song_file(samples) for name, samples in songs.items()})
        assert platform.materialize().success
        assert platform.materialize_catalogs().success
    assert len(decoded) == len(songs)
    rows = platform.table("songs").rows(named=True)
    catalog = pl.read_parquet(f"{platform.store.url}/song_catalog/*.parquet")
    for name, samples in songs.items():
        (row,) = [row for row in rows if row["song_id"] == ids[name]]
        level = Normalisation.of_song(row["mono_mean"], row["mono_std"], row["rms_dbfs"])
        wanted = expected(tiny, samples, level)
        stems = platform.table("stems").filter(song_id=ids[name])
        assert stems["stem"].to_list() == list(wanted) and set(stems["model"]) == {"three"}
        for stem, audio, gain in stems.select("stem", "audio", "gain").iter_rows():
            stored = soundfile.read(io.BytesIO(audio["bytes"]), dtype="float64")[0].T * gain
            np.testing.assert_allclose(stored, wanted[stem], rtol=0, atol=1e-6)
        (line,) = catalog.filter(song_id=ids[name]).rows(named=True)
        assert (line["separator"], line["status"]) == ("three", "ok")
        assert line["residual_db"] < -100, "the rest makes the stems add up"
        assert not any(table.remarks for table in trace(platform.store, ids[name]).tables)
    assert set(platform.table("stem_instrument_tags")["source"]) <= {*FOUR}
