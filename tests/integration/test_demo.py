"""The demo's songs and sounds without instruments, with the embedded models: what is present is right for each."""

import io
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from instances import new_instance
from platforms import SAMPLE_RATE, Platform, local_settings

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import demo_score

QUERIES = Path(__file__).parents[2] / "docs" / "queries.md"
SPEECH = Path(__file__).parents[1] / "data" / "speech.ogg"  # the voice slt of flite
SECONDS = 6.0


def wav(mono: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([mono, mono], axis=1), SAMPLE_RATE, "PCM_16", format="WAV")
    return file.getvalue()


def sounds() -> dict[str, bytes]:
    """File name → a sound in which no instrument plays."""
    time = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    return {
        "speech.ogg": SPEECH.read_bytes(),
        "silence.wav": wav(np.zeros(len(time))),
        "sine.wav": wav(0.3 * np.sin(2 * np.pi * 440 * time)),
        "noise.wav": wav(np.random.default_rng(0).normal(0, 0.1, len(time))),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The folder of a store with the demo's songs and the other sounds."""
    songs = {path.name: path.read_bytes() for path in demo_score.PARTS.parent.glob("*.[mo][pg][3g]")}
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path_factory.mktemp("demo")), instance)
        platform.upload(songs | sounds())
        assert platform.materialize().success
        assert platform.materialize_catalogs().success
        yield platform.store.url


@pytest.fixture(scope="module")
def catalog(store: str) -> pl.DataFrame:
    """``song_catalog`` of the store."""
    return pl.read_parquet(f"{store}/song_catalog/song_catalog.parquet")


def heard(catalog: pl.DataFrame, name: str) -> dict[str, list[str]]:
    """Instrument that is present in a file → the sources in which it is."""
    (instruments,) = catalog.filter(pl.col("filename") == name)["instruments"].to_list()
    return {found["instrument"]: found["sources"] for found in instruments}


def test_at_least_eight_of_the_demos_ten_parts_are_found_and_nothing_that_does_not_play(
    catalog: pl.DataFrame,
) -> None:
    judged = demo_score.judge(tomllib.loads(demo_score.PARTS.read_text())["songs"], catalog)
    assert sum(len(song.found) for song in judged) >= 8
    assert [song.false for song in judged] == [[], [], []]
    (voice,) = [song for song in judged if "vocals" in song.plays]
    assert voice.heard["vocals"] == ["vocals"], (
        "an audible stem counts, although the mixture is not tagged with it"
    )


def test_speech_alone_is_a_voice_and_no_instrument(catalog: pl.DataFrame) -> None:
    assert heard(catalog, "speech.ogg") == {"spoken word": ["mixture", "vocals"]}


@pytest.mark.parametrize("name", ["silence.wav", "sine.wav", "noise.wav"])
def test_nothing_is_present_in_a_sound_without_instruments(catalog: pl.DataFrame, name: str) -> None:
    assert heard(catalog, name) == {}
    assert catalog.filter(pl.col("filename") == name)["tagger"].to_list() == (
        [None] if name == "silence.wav" else ["bandscope-instruments"]
    )


def test_the_page_of_queries_runs_from_top_to_bottom_on_the_demos_store(
    store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"BANDSCOPE_STORAGE": store, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    page = "\n".join(re.findall(r"^```python\n(.*?)^```$", QUERIES.read_text(), re.DOTALL | re.MULTILINE))
    names: dict[str, Any] = {}
    exec(compile(page, "queries.md", "exec"), names)
    assert names["found"]["name"].to_list() == ["Paper Boats"], "the first question has an answer"
    assert {"banjo", "violin"} <= set(names["timeline"]["instrument"])
    assert {"clarinet", "harp"} in [set(pair) for pair in names["together"].values[:, :2].tolist()]
    assert {"banjo", "harp", "drums"} <= set(names["clips"].classes)
