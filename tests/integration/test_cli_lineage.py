"""``bandscope lineage``: the origin of every table, for people and as JSON."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from planned_songs import PLANNER, make, validate
from rich.console import Console
from song_rows import NOW, song_row

from bandscope_dagster.cli.lineage import print_lineage
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.pipeline.failures import FailureLog
from bandscope_dagster.songs.find import NoSuchSong
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import PACKAGES, Lineage
from bandscope_dagster.storage.tables.schemas import SONG_TABLES, TABLES

ROW = song_row(
    "song",
    song_hash="ab" * 32,
    upload_key="uploads/mia/[live] night\n bus.wav",
    title="Night Bus",
    size_bytes=7_489_152,
    container="wav",
    codec="pcm_s16le",
    channels=2,
    frames=882_000,
)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    store = open_store(str(tmp_path))
    validate(store, ROW)
    return store


def printed(store: ObjectStore, pattern: str = "song", *, as_json: bool = False) -> str:
    file = io.StringIO()
    print_lineage(store, Console(file=file, width=100), pattern, as_json=as_json)
    return file.getvalue()


def facts_of(text: str, table: str) -> dict[str, str]:
    """Name → value of the lines below a table's name; folded lines are joined."""
    (section,) = re.findall(rf"^{table}\b.*\n((?:.+\n)*)", text, re.MULTILINE)
    facts: dict[str, str] = {}
    for line in section.splitlines():
        name, value = line[:14].strip(), line[14:].strip()
        if name:
            facts[name] = value
        else:
            facts[[*facts][-1]] += f" {value}"
    return facts


def test_the_upload_and_every_table_fit_into_a_hundred_columns(store: ObjectStore) -> None:
    make(store, row=ROW, created_at=NOW)
    text = printed(store)
    assert max(map(len, text.splitlines())) <= 100
    for shown in (
        "Night Bus",
        "uploads/mia/[live] night bus.wav, 7.5 MB, 2026-01-02 03:04 UTC",
        "ab" * 32,
        "pcm_s16le in wav, 44100 Hz, 2 channels",
        "to 882000 frames at 44.1 kHz, stereo, by av ",
    ):
        assert shown in text, shown
    stems = facts_of(text, "stems")
    assert stems | {"input digest": ""} == {
        "model": "separator",
        "weights": "11" * 32,
        "parameters": "flac_bits 16, overlap 0.25, sources vocals drums",
        "input digest": "",
        "code version": "2",
        "run": "run",
        "made": "2026-01-02 03:04 UTC",
        "computed on": "device cpu, batch 1, segment 343980",
        "columns": "version 1",
    }
    assert "model" not in facts_of(text, "decoded_waveforms")
    assert text.count("software") == 1 and "!" not in text


def test_missing_files_and_files_that_do_not_fit_are_marked(store: ObjectStore) -> None:
    make(store, "stems", "stem_instrument_tags", row=ROW)
    other = replace(PLANNER, separator=ModelIdentity("better", "44" * 32))
    make(store, "stems", planner=other, row=ROW)
    text = printed(store)
    assert "\ndecoded_waveforms  no file\n" in text
    assert facts_of(text, "stem_instrument_tags")["!"].startswith("computed from other stems than")


def test_as_json_every_table_has_the_entries_of_its_file(store: ObjectStore) -> None:
    make(store, "stems", row=ROW)
    FailureLog(store, "run-2").failed("song", ["instrument_tags"], "failed: no memory")
    (line,) = printed(store, as_json=True).splitlines()
    song = json.loads(line)
    assert song["song_id"] == "song"
    assert song["upload"]["song_hash"] == "ab" * 32
    assert song["upload"]["uploaded_at"] == NOW.isoformat()
    assert song["decoded"]["codec"] == "pcm_s16le"
    tables = song["tables"]
    assert list(tables) == [*(table.name for table in SONG_TABLES), "song_failures"]
    for name in ("songs", "stems", "song_failures"):
        assert set(Lineage.__slots__) < set(tables[name]), name
        assert set(tables[name]["software"]) == set(PACKAGES)
        assert tables[name]["table_version"] == TABLES[name].version
    assert tables["stems"]["params"] == {"flac_bits": 16, "overlap": 0.25, "sources": ["vocals", "drums"]}
    assert tables["decoded_waveforms"] == {"stored": False, "remarks": []}
    assert tables["instrument_tags"]["remarks"] == ["the last run could not compute it: failed: no memory"]


def test_songs_are_found_by_title_or_pattern_one_json_object_a_line(store: ObjectStore) -> None:
    validate(store, ROW | {"song_id": "other"})
    lines = printed(store, "Night*", as_json=True).splitlines()
    assert [json.loads(line)["song_id"] for line in lines] == ["other", "song"]
    assert "Night Bus" in printed(store, "Night Bus")


def test_a_song_that_only_failed_is_shown_and_an_unknown_song_is_an_error(store: ObjectStore) -> None:
    FailureLog(store, "run").failed("lost", ["songs"], "failed: the disk is full")
    text = printed(store, "lost")
    assert "unknown: songs has no readable file of this song" in text
    assert "\nsongs  no file\n" in text
    assert "the last run could not compute it: failed: the disk is full" in text
    with pytest.raises(NoSuchSong, match="no song matches 'unknown'"):
        printed(store, "unknown")
