"""``song_errors`` lists every error in the tables, with its reason and time: one row per song and reason."""

from datetime import timedelta

import polars as pl
from catalog_songs import SONG_ERRORS, analyze, refreshed, reject, tags_with_lost_windows
from song_rows import NOW, lineage, song_row, tag_row

from bandscope_dagster.songs.query import query
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    SONG_FAILURES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    table_key,
)
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table

TRUNCATED = "truncated: 3 of 10 s: decode"


def fail(store: ObjectStore, song: str, **reasons: str) -> None:
    """Write the failures of a song's tables: table → reason."""
    rows = [
        {"song_id": song, "table": table, "stage": table, "reason": reason, "message": table, "since": NOW}
        for table, reason in reasons.items()
    ]
    write_table(store, SONG_FAILURES, rows, lineage(song))


def test_a_rejected_song_has_one_row_with_the_tables_that_repeat_its_error(store: ObjectStore):
    analyze(store, "whole")
    reject(store, "broken", TRUNCATED)
    later = NOW + timedelta(days=1)
    write_error_row(store, STEMS, "whole", "not_finite: the stems", lineage("whole", created_at=later))
    rejected, last = refreshed(store, SONG_ERRORS)
    assert rejected == {
        "song_id": "broken",
        "table": "songs",
        "stage": "songs",
        "reason": "truncated",
        "message": "3 of 10 s: decode",
        "since": NOW,
        "tables": ["songs", *(table.name for table in ANALYSIS_TABLES)],
        "messages": ["3 of 10 s: decode"] * 5,
    }
    assert (last["song_id"], last["table"], last["tables"]) == ("whole", "stems", ["stems"])
    assert (last["stage"], last["reason"], last["since"]) == ("stems", "not_finite", later)


def test_windows_without_tags_are_one_error_of_their_table(store: ObjectStore):
    analyze(store, "song", tags_with_lost_windows("song"))
    (row,) = refreshed(store, SONG_ERRORS)
    assert (row["table"], row["stage"], row["reason"]) == (
        "instrument_tags",
        "instrument_tags",
        "unparseable",
    )
    assert row["message"] == "2 windows without tags, the first: no list"


def test_tables_with_one_reason_are_one_row_and_each_keeps_its_message(store: ObjectStore):
    lost = tag_row("song", None, None, 0.0, source="vocals", label=None, error="unparseable: an essay")
    analyze(store, "song", tags_with_lost_windows("song"), [lost])
    (row,) = refreshed(store, SONG_ERRORS)
    assert row["tables"] == ["instrument_tags", "stem_instrument_tags"]
    assert row["messages"] == [
        "2 windows without tags, the first: no list",
        "1 window without tags, the first: an essay",
    ]
    assert (row["table"], row["message"]) == (row["tables"][0], row["messages"][0])


def test_the_number_of_rows_with_a_reason_is_the_number_of_songs(store: ObjectStore):
    for song in ("cut", "short"):
        reject(store, song, TRUNCATED)
    write_table(store, SONGS, [song_row("failed")], lineage("failed"))
    fail(store, "failed", stems="MemoryError", stem_instrument_tags="MemoryError", instrument_tags="OSError")
    refreshed(store, SONG_ERRORS)
    counts = query(store, "SELECT reason, count(*) AS songs FROM song_errors GROUP BY reason ORDER BY reason")
    assert counts.rows() == [("MemoryError", 1), ("OSError", 1), ("truncated", 2)]
    tables = query(store, "SELECT reason, tables FROM song_errors WHERE song_id = 'failed' ORDER BY reason")
    assert tables.rows() == [
        ("MemoryError", ["stems", "stem_instrument_tags"]),
        ("OSError", ["instrument_tags"]),
    ]


def test_the_rows_in_the_order_of_the_pipeline_begin_with_the_first_table(store: ObjectStore):
    write_table(store, SONGS, [song_row("song")], lineage("song"))
    fail(store, "song", stem_instrument_tags="b", stems="b", instrument_tags="a", decoded_waveforms="c")
    rows = refreshed(store, SONG_ERRORS)
    assert [(row["table"], row["reason"]) for row in rows] == [
        ("decoded_waveforms", "c"),
        ("stems", "b"),
        ("instrument_tags", "a"),
    ]


def test_a_damaged_file_has_no_time_and_does_not_hide_that_of_others(store: ObjectStore):
    analyze(store, "song")
    for table in (STEMS, STEM_INSTRUMENT_TAGS):
        with store.create(table_key(table, "song")) as pending:
            pending.write(b"PAR")
    (row,) = refreshed(store, SONG_ERRORS)
    assert (row["reason"], row["tables"], row["since"]) == (
        "damaged",
        ["stems", "stem_instrument_tags"],
        None,
    )
    assert all(table in message for table, message in zip(row["tables"], row["messages"], strict=True))


def test_the_lists_become_one_row_per_song_and_table_again(store: ObjectStore):
    reject(store, "broken", TRUNCATED)
    rows = pl.DataFrame(refreshed(store, SONG_ERRORS)).explode("tables", "messages")
    assert rows.select("song_id", "tables", "messages").rows() == [
        ("broken", table, "3 of 10 s: decode")
        for table in ("songs", *(each.name for each in ANALYSIS_TABLES))
    ]
