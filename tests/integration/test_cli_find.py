"""``bandscope find``: songs by the instruments that are heard in them, by name or family, in a source, for a time."""

import json
from pathlib import Path

import pytest
from catalog_songs import CATALOGS, analyze
from command_line import CommandLine
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import write_table
from bandscope_dagster.tagging.vocabulary import load_vocabulary


@pytest.fixture
def bandscope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> CommandLine:
    store = open_store(str(tmp_path))

    def tags(song: str, family: str, *heard: tuple[str, float]):
        return [
            tag_row(song, name, score, start, family=family) for name, score in heard for start in (0.0, 3.0)
        ]

    strings, voice = "plucked strings", "voice"
    analyze(store, "duo", tags("duo", strings, ("guitar", 0.9)) + tags("duo", voice, ("vocals", 0.9)))
    analyze(store, "solo", tags("solo", strings, ("acoustic guitar", 0.9), ("harp", 0.1)))
    stem = [tag_row("choir", "choir", 0.9, 0.0, family=voice, source="vocals")]
    analyze(store, "choir", tags("choir", strings, ("harp", 0.9)), stem)
    write_table(store, SONGS, [song_row("untagged")], lineage("untagged"))
    list(refresh(store, CATALOGS))
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path))
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--with", "guitar"], "duo solo"),
        (["--with", "Guitar", "--without", "vocals"], "solo"),
        (["--with", "guitar", "--without", "voice"], "solo"),
        (["--with", "harp", "--min-seconds", "6"], "choir"),
        (["--with", "harp", "--min-seconds", "7"], ""),
        (["--with", "voice", "--in", "vocals"], "choir"),
        (["--with", "singing"], "duo"),
        (["--without", "harp"], "duo solo"),
        (["--without", "guitar", "--in", "vocals"], "choir"),
        (["--longer", "20"], ""),
        (["--shorter", "21"], "choir duo solo untagged"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_songs_are_found_by_what_is_heard(bandscope: CommandLine, options: list[str], found: str) -> None:
    done = bandscope("find", *options, "--json")
    assert done.code == 0, done.err
    assert {song["song_id"] for song in json.loads(done.out)} == set(found.split())


def test_the_everyday_name_of_a_family_finds_all_its_instruments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wanted = {
        "strings": "cello erhu violin",
        "string section": "cello erhu violin",
        "Streicher": "cello erhu violin",
        "plucked strings": "guitar",
        "brass": "trumpet",
        "horns": "trumpet",
        "woodwinds": "flute",
        "winds": "flute",
        "mallets": "marimba",
        "percussion": "drums",
        "vocals": "choir",
        "voice": "choir",
        "keys": "piano",
        "keyboards": "piano",
        "bass": "synth-bass",
        "synth": "synth-bass synth-lead",
        "electronic": "synth-lead",
    }
    played = "violin cello erhu trumpet flute marimba drums choir piano synth-lead synth-bass guitar"
    store = open_store(str(tmp_path))
    for song in played.split():
        heard = load_vocabulary().match(song.replace("-", " "))
        analyze(store, song, [tag_row(song, heard.instrument, 0.9, 0.0, family=heard.family)])
    list(refresh(store, CATALOGS))
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path))
    bandscope = CommandLine(monkeypatch, capsys)

    def songs(*options: str) -> set[str]:
        return {song["song_id"] for song in json.loads(bandscope("find", *options, "--json").out)}

    assert {said: " ".join(sorted(songs("--with", said))) for said in wanted} == wanted
    assert songs("--without", "strings") == set(played.split()) - {"violin", "cello", "erhu"}


def test_the_answer_in_words_and_suggestions_for_unknown_names(bandscope: CommandLine) -> None:
    done = bandscope("find", "--with", "guitar", "--without", "voice")
    assert "solo  a.wav (0:20, heard for 0:06)" in done.out and "1 song\n" in done.out
    done = bandscope("find", "--with", "guitr")
    assert done.code == 1 and "no instrument is named 'guitr'; did you mean guitar" in done.err
    done = bandscope("find", "--with", "guitar", "--in", "drums")
    assert done.code == 1 and "no song has a source 'drums'; choose from mixture, vocals" in done.err
