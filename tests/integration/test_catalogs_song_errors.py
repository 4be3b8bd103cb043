"""``song_errors`` lists every error in the tables, with its reason and time."""

from datetime import timedelta

from catalog_songs import SONG_ERRORS, analyze, refreshed, reject, tags_with_lost_windows
from song_rows import NOW, lineage

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import ANALYSIS_TABLES, STEMS
from bandscope_dagster.storage.tables.song_tables import write_error_row


def test_errors_are_listed_by_song_and_table_with_the_time_of_their_file(store: ObjectStore):
    analyze(store, "whole")
    reject(store, "broken", "truncated: 3 of 10 s: decode")
    later = NOW + timedelta(days=1)
    write_error_row(store, STEMS, "whole", "not_finite: the stems", lineage("whole", created_at=later))
    rows = refreshed(store, SONG_ERRORS)
    assert [(row["song_id"], row["table"]) for row in rows] == [
        ("broken", "songs"),
        *(("broken", table.name) for table in ANALYSIS_TABLES),
        ("whole", "stems"),
    ]
    assert {(row["stage"], row["reason"], row["message"], row["since"]) for row in rows[:5]} == {
        ("songs", "truncated", "3 of 10 s: decode", NOW)
    }
    last = rows[5]
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
