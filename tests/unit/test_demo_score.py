"""The demo's songs are small, whole and named as in the vocabulary, and the score counts both kinds of errors."""

import hashlib
import sys
import tomllib
from pathlib import Path

import polars as pl

from bandscope_dagster.tagging.vocabulary import load_vocabulary

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import demo_score

SONGS = tomllib.loads(demo_score.PARTS.read_text())["songs"]
FOLDER = demo_score.PARTS.parent


def catalog(heard: dict[str, list[str]]) -> pl.DataFrame:
    """A song that is in the catalog, and one that was not tagged."""
    instruments = [{"instrument": name, "sources": sources} for name, sources in heard.items()]
    return pl.DataFrame({"filename": ["a.mp3", "b.mp3"], "instruments": [instruments, None]})


def test_the_songs_are_those_of_the_list_and_small() -> None:
    files = {path.name: path for path in FOLDER.iterdir() if path.suffix != ".toml"}
    assert {song["file"]: song["sha256"] for song in SONGS} == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    }
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 3_000_000


def test_the_ten_parts_have_the_names_of_the_vocabulary() -> None:
    names = [name for song in SONGS for name in song["parts"]]
    assert len(names) == 10
    assert [load_vocabulary().match(name).instrument for name in names] == names


def test_the_score_counts_parts_that_were_found_and_instruments_that_do_not_play() -> None:
    songs = [
        {"title": "A", "file": "a.mp3", "parts": {"harp": [], "flute": []}},
        {"title": "B", "file": "b.mp3", "parts": {"drums": []}},
    ]
    first, second = demo_score.judge(songs, catalog({"harp": ["mixture"], "banjo": ["vocals"]}))
    assert (first.found, first.false) == (["harp"], ["banjo"])
    assert (second.found, second.false) == ([], [])
    assert demo_score.score([first, second]) == (
        "1 of 3 parts were found; 1 instrument was heard that does not play."
    )
    lines = demo_score.as_table([first, second]).columns[2].cells
    assert list(lines) == ["mixture", "not heard", "banjo, which does not play (vocals)", "not heard"]
