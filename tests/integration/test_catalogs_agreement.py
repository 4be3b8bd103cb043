"""The check of a catalog finds songs that are missing from it."""

import polars as pl
from catalog_songs import CATALOGS, analyze, reject
from song_rows import NOW, tag_row

from bandscope_dagster.catalogs.agreement import disagreements, read_song_states, status_counts
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.catalogs.song_errors import latest_problems
from bandscope_dagster.storage.objects.protocol import ObjectStore


def test_catalogs_of_one_refresh_agree_and_those_of_two_may_not(store: ObjectStore) -> None:
    song_catalog, instruments, errors = CATALOGS
    analyze(store, "a", tags=[tag_row("a", "harp", 0.9, 0.0)])
    reject(store, "b", "truncated: 3 of 10 s decode")
    assert [*refresh(store, CATALOGS)]
    states = read_song_states(store)
    assert [line for each in CATALOGS for line in disagreements(store, each.table, states, 2)] == []
    assert states is not None and status_counts(states) == {"ok": 1, "rejected": 1}
    (problem,) = latest_problems(store, states, 50)
    since = f"{NOW:%F %T}"
    expected = ("b", "rejected", "truncated", "3 of 10 s decode", since)
    assert tuple(problem.values()) == expected, "one row for a song, also if all its tables repeat the reason"

    analyze(store, "c", tags=[tag_row("c", "harp", 0.9, 0.0)])
    reject(store, "d", "empty: no bytes")
    two_rows = "it has 2 rows, and the tables have 4 songs"
    assert [*disagreements(store, song_catalog.table, states, 4)] == [two_rows]
    assert [*refresh(store, [song_catalog])]
    states = read_song_states(store)
    assert [row["song_id"] for row in latest_problems(store, states, 50)] == ["b"], "the stored song_errors"
    missing = "no row for 1 song that must have one by song_catalog"
    for each in (instruments, errors):
        assert [*disagreements(store, each.table, states)] == [missing]
        unknown = [*disagreements(store, each.table, pl.DataFrame(schema=states.schema))]
        assert unknown == ["1 song that song_catalog does not have"]
        assert [*disagreements(store, each.table, None)] == ["song_catalog cannot be read"]
