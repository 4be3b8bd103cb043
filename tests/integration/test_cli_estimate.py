"""The time of a separation, printed before it begins."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from catalog_songs import analyze
from known_models import Shares
from rich.console import Console

from bandscope_dagster.cli.estimate import SpeedUnknown, print_estimate, speed_line, tells_speed
from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.separation.registry import SEPARATORS
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.tables.song_files import list_all_files


@dataclass(eq=False)
class Slow(Shares):
    """Takes ``seconds`` for a segment of two seconds, which begins every second."""

    seconds: float = 0.5
    __hash__ = object.__hash__

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        if self.seconds > 1:
            raise RuntimeError("not enough memory: can't allocate memory")
        return super().separate(segments)


def with_speed(monkeypatch: pytest.MonkeyPatch, seconds: float, folder: Path) -> Settings:
    monkeypatch.setitem(SEPARATORS, "htdemucs", lambda *_: Slow(seconds=seconds))  # pyright: ignore
    return Settings(
        separator="htdemucs", device="cpu", storage=str(folder), models_folder=str(folder / f"{seconds}")
    )


def printed(settings: Settings, songs: set[str]) -> str:
    console = Console(width=40, record=True, quiet=False)
    with console.capture() as text:
        print_estimate(console, settings, list_all_files(settings.open_store(), SOURCES), songs)
    return text.get()


def test_the_time_of_known_songs_is_told_in_all_and_of_others_per_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_speed(monkeypatch, 0.5, tmp_path)
    store = open_store(str(tmp_path))
    for song in ("one", "two"):
        analyze(store, song)
    known = printed(settings, {"one", "two"})
    found = re.fullmatch(
        r"htdemucs on \d+ CPU cores?: about (0\.\d+) \u00d7 the length of a song;"
        r" 2 songs of 40 s in all: about (\d+) s\n",
        known,
    )
    assert found is not None, known
    assert 0.5 <= float(found[1]) <= 2
    assert abs(int(found[2]) - float(found[1]) * 40) <= 2
    unknown = printed(settings, {"one", "new"})
    assert re.search(r"; 2 songs: about \d+ (s|min) for each minute of audio\n$", unknown), unknown
    assert speed_line(Console(quiet=True), settings) == known.partition(";")[0]
    assert printed(settings, set()) == ""


def test_nothing_is_told_of_fast_models_and_of_clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = with_speed(monkeypatch, 0.0, tmp_path)
    assert printed(fast, {"new"}) == "" and tells_speed(fast)
    embedded = Settings(storage=str(tmp_path), device="cpu")
    assert printed(embedded, {"new"}) == "" and not tells_speed(embedded)
    assert not tells_speed(fast.model_copy(update={"executor": "ray"}))


def test_a_probe_that_fails_does_not_stop_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = with_speed(monkeypatch, 1.1, tmp_path)
    said = printed(settings, {"new"})
    assert "the speed of htdemucs cannot be measured: RuntimeError: not enough memory" in said
    with pytest.raises(SpeedUnknown):
        speed_line(Console(quiet=True), settings)


def test_a_model_that_cannot_be_loaded_is_named_and_a_bandscope_error_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(error: Exception) -> Settings:
        def load(*_: object) -> Slow:
            raise error

        settings = with_speed(monkeypatch, 0.0, tmp_path / type(error).__name__)
        monkeypatch.setitem(SEPARATORS, "htdemucs", load)
        return settings

    said = printed(refuse(RuntimeError("no kernel image")), {"new"})
    assert said == "the speed of htdemucs cannot be measured: RuntimeError: no kernel image\n"
    with pytest.raises(ModelFileError, match="missing"):
        printed(refuse(ModelFileError("missing")), {"new"})


def test_a_roformer_takes_at_least_what_its_shortest_chunk_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SEPARATORS, "bs-roformer", lambda *_: Slow(seconds=0.3))  # pyright: ignore
    folder = str(tmp_path)
    settings = Settings(separator="bs-roformer", device="cpu", storage=folder, models_folder=folder)
    said = printed(settings, {"new"})
    assert re.search(
        r": at least 0\.\d+ \u00d7 the length of a song; 1 song: at least \d+ s for each", said
    ), said
