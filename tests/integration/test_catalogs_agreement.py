"""The check of a catalog finds songs that are missing from it."""

from catalog_songs import CATALOGS, analyze, reject
from song_rows import tag_row

from bandscope_dagster.catalogs.agreement import disagreements, status_counts
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.protocol import ObjectStore


def test_catalogs_of_one_refresh_agree_and_those_of_two_may_not(store: ObjectStore) -> None:
    song_catalog, instruments, errors = CATALOGS
    analyze(store, "a", tags=[tag_row("a", "harp", 0.9, 0.0)])
    reject(store, "b", "truncated: 3 of 10 s decode")
    assert [*refresh(store, CATALOGS)]
    assert [line for each in CATALOGS for line in disagreements(store, each.table, 2)] == []
    assert status_counts(store) == {"ok": 1, "rejected": 1}

    analyze(store, "c", tags=[tag_row("c", "harp", 0.9, 0.0)])
    reject(store, "d", "empty: no bytes")
    assert [*disagreements(store, song_catalog.table, 4)] == ["it has 2 rows, and the tables have 4 songs"]
    assert [*refresh(store, [song_catalog])]
    missing = "no row for 1 song that must have one by song_catalog"
    assert [*disagreements(store, instruments.table)] == [*disagreements(store, errors.table)] == [missing]
