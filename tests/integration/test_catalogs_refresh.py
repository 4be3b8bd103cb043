"""A refresh reads only changed songs, and its result equals a build from all songs."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from catalog_songs import (
    CATALOGS,
    INSTRUMENT_CATALOG,
    PRESENT_FROM,
    SONG_CATALOG,
    SONG_ERRORS,
    analyze,
    reject,
    remove,
    rows_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.catalogs.instrument_catalog import instrument_catalog
from bandscope_dagster.catalogs.refresh import Catalog, Refreshed, refresh
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS, Table, catalog_key
from bandscope_dagster.storage.tables.song_tables import read_table, write_table
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB, PresenceRule
from bandscope_dagster.tagging.registry import present_from


def harp(song: str, score: float = 0.5) -> list[dict]:
    return [tag_row(song, "harp", score, 0.0)]


def refresh_all(store: ObjectStore) -> list[Refreshed]:
    return list(refresh(store, CATALOGS))


def refresh_one(store: ObjectStore, catalog: Catalog) -> Refreshed:
    (done,) = refresh(store, [catalog])
    return done


def counts(done: Refreshed) -> tuple[bool, int, int, int]:
    """(True if all songs were read, songs in the store, songs read, songs removed)."""
    changes = done.changes
    return changes.full, changes.songs, len(changes.to_read), len(changes.removed)


def catalogs(store: ObjectStore) -> dict[str, pl.DataFrame]:
    return {
        catalog.table.name: pl.DataFrame(
            rows_of(store, catalog.table), schema=pl.Schema(catalog.table.schema), orient="row"
        )
        for catalog in CATALOGS
    }


def assert_equals_a_full_build(store: ObjectStore) -> None:
    """Compare the stored catalogs with catalogs that are built from nothing."""
    found = catalogs(store)
    for catalog in CATALOGS:
        store.delete(catalog_key(catalog.table))
        assert refresh_one(store, catalog).changes.full
    for name, built in catalogs(store).items():
        assert_frame_equal(found[name], built)


def state_key(store: ObjectStore, table: Table) -> str:
    (found,) = store.list(f"_state/{table.name}")
    return found.key


def overwrite(store: ObjectStore, key: str, data: bytes) -> None:
    with store.create(key) as pending:
        pending.write(data)


def test_an_empty_store_has_empty_catalogs_with_the_right_columns(store: ObjectStore):
    for catalog, done in zip(CATALOGS, refresh_all(store), strict=True):
        assert done.file.key == f"{catalog.table.name}/{catalog.table.name}.parquet"
        assert (done.file.rows, *counts(done)) == (0, True, 0, 0, 0)
        with store.open(done.file.key) as file:
            schema = pq.read_schema(file)
        assert schema.equals(catalog.table.schema)
        assert all(field.metadata[b"description"] for field in schema)


def test_new_changed_and_removed_songs_are_counted(store: ObjectStore):
    for song in ("a", "b", "c"):
        analyze(store, song, harp(song))
    assert [counts(done) for done in refresh_all(store)] == [(True, 3, 3, 0)] * 3

    analyze(store, "b", harp("b", 0.9))
    analyze(store, "d", harp("d"))
    remove(store, "c")
    for done in refresh_all(store):
        assert counts(done) == (False, 3, 2, 1)
        assert done.file.bytes == store.head(done.file.key).size
    scores = {row["song_id"]: row["score"] for row in rows_of(store, INSTRUMENT_CATALOG.table)}
    assert scores == {"a": 0.5, "b": pytest.approx(0.9), "d": 0.5}
    assert [row["song_id"] for row in rows_of(store, SONG_CATALOG.table)] == ["a", "b", "d"]
    assert_equals_a_full_build(store)


def test_a_refresh_without_changes_writes_nothing(store: ObjectStore):
    analyze(store, "song", harp("song"))
    before = [done.file for done in refresh_all(store)]
    heads = {found.key: found for found in store.list()}
    again = refresh_all(store)
    assert {found.key: found for found in store.list()} == heads
    assert [done.file for done in again] == before
    assert [counts(done) for done in again] == [(False, 1, 0, 0)] * 3


def test_a_song_deleted_from_songs_is_in_no_catalog(store: ObjectStore):
    analyze(store, "gone", harp("gone"))
    reject(store, "stays", "empty: 0 bytes")
    refresh_all(store)
    store.delete("songs/gone.parquet")
    assert [counts(done) for done in refresh_all(store)] == [(False, 1, 0, 1)] * 3
    assert {song for table in catalogs(store).values() for song in table["song_id"]} == {"stays"}


def test_the_files_of_an_unchanged_song_are_not_opened(tmp_path: Path):
    store = open_store(str(tmp_path))
    for song in ("same", "changed"):
        analyze(store, song, harp(song))
    refresh_all(store)
    for path in tmp_path.glob("*/same.parquet"):
        times = path.stat()
        path.write_bytes(bytes(times.st_size))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    analyze(store, "changed", harp("changed", 0.9))
    assert [counts(done) for done in refresh_all(store)] == [(False, 2, 1, 0)] * 3
    assert {row["song_id"] for row in rows_of(store, INSTRUMENT_CATALOG.table)} == {"same", "changed"}


@pytest.mark.parametrize(
    "changed",
    [
        instrument_catalog(present_from(0.6, AUDIBLE_DB), "1"),
        instrument_catalog({**PRESENT_FROM, "tagger": PresenceRule(0.6)}, "1"),
        instrument_catalog(present_from(0.6, AUDIBLE_DB), "2"),
        instrument_catalog({**PRESENT_FROM, "tagger": PresenceRule(0.2, {"harp": 0.6})}, "1"),
        instrument_catalog({**PRESENT_FROM, "tagger": PresenceRule(0.2, best_share=0.25)}, "1"),
        replace(
            INSTRUMENT_CATALOG, layout=replace(INSTRUMENT_CATALOG.layout, order=("instrument", "source"))
        ),
    ],
    ids=["bound", "bound-of-a-tagger", "code", "bound-of-a-label", "share", "order"],
)
def test_a_catalog_with_other_settings_code_or_order_is_rebuilt(tmp_path: Path, changed: Catalog):
    store = open_store(str(tmp_path))
    analyze(store, "song", harp("song"))
    refresh_one(store, INSTRUMENT_CATALOG)
    assert refresh_one(store, changed).changes.full
    assert not refresh_one(store, changed).changes.full
    assert refresh_one(store, INSTRUMENT_CATALOG).changes.full


def test_a_catalog_without_an_added_column_is_rebuilt(store: ObjectStore):
    analyze(store, "song")
    table = SONG_CATALOG.table
    older = replace(
        SONG_CATALOG, layout=replace(SONG_CATALOG.layout, table=replace(table, columns=table.columns[:-1]))
    )
    refresh_one(store, older)
    assert list(rows_of(store, table)[0]) == list(table.names[:-1])
    assert refresh_one(store, SONG_CATALOG).changes.full
    assert list(rows_of(store, table)[0]) == list(table.names)


def lose_state(store: ObjectStore) -> None:
    store.delete(state_key(store, SONG_CATALOG.table))


def break_state(store: ObjectStore) -> None:
    key = state_key(store, SONG_CATALOG.table)
    overwrite(store, key, store.read(key)[:-20])


def lose_catalog(store: ObjectStore) -> None:
    store.delete(catalog_key(SONG_CATALOG.table))


def empty_catalog(store: ObjectStore) -> None:
    overwrite(store, catalog_key(SONG_CATALOG.table), b"")


def break_pages_of_catalog(store: ObjectStore) -> None:
    key = catalog_key(SONG_CATALOG.table)
    data = store.read(key)
    footer = int.from_bytes(data[-8:-4], "little") + 8
    overwrite(store, key, b"PAR1" + bytes(len(data) - footer - 4) + data[-footer:])


def put_a_foreign_catalog(store: ObjectStore) -> None:
    with store.create(catalog_key(SONG_CATALOG.table)) as pending:
        pq.write_table(SONG_CATALOG.table.schema.empty_table(), pending.file)


@pytest.mark.parametrize(
    "damage",
    [lose_state, break_state, lose_catalog, empty_catalog, break_pages_of_catalog, put_a_foreign_catalog],
)
def test_a_missing_or_damaged_catalog_or_state_is_rebuilt(
    store: ObjectStore, damage: Callable[[ObjectStore], None]
):
    for song in ("a", "b"):
        analyze(store, song, harp(song))
    refresh_one(store, SONG_CATALOG)
    damage(store)
    analyze(store, "c", harp("c"))
    refresh_one(store, SONG_CATALOG)
    assert [row["song_id"] for row in rows_of(store, SONG_CATALOG.table)] == ["a", "b", "c"]
    analyze(store, "d", harp("d"))
    assert len(refresh_one(store, SONG_CATALOG).changes.to_read) == 1


def test_a_catalog_without_its_own_state_is_rebuilt(store: ObjectStore):
    """The case of a store that was restored in part from a backup."""
    analyze(store, "a", harp("a"))
    refresh_one(store, INSTRUMENT_CATALOG)
    key = catalog_key(INSTRUMENT_CATALOG.table)
    old = store.read(key)
    analyze(store, "a", harp("a", 0.9))
    refresh_one(store, INSTRUMENT_CATALOG)
    overwrite(store, key, old)
    assert refresh_one(store, INSTRUMENT_CATALOG).changes.full
    assert rows_of(store, INSTRUMENT_CATALOG.table)[0]["score"] == pytest.approx(0.9)


def test_after_refreshes_at_the_same_time_the_next_refresh_completes_the_catalog(store: ObjectStore):
    for song in ("a", "b"):
        analyze(store, song, harp(song))
    refresh_all(store)
    for number in range(3):
        errors: list[BaseException] = []

        def work(song: str, score: float, errors: list[BaseException] = errors) -> None:
            try:
                analyze(store, song, harp(song, score))
                refresh_all(store)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(song, 0.3 + number / 10)) for song in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        refresh_all(store)
        assert_equals_a_full_build(store)


def test_a_file_without_an_added_column_is_still_read(store: ObjectStore):
    analyze(store, "old")
    table = read_table(store, SONGS, "old").drop_columns(["genre"])
    with store.create("songs/old.parquet") as pending:
        pq.write_table(table, pending.file)
    analyze(store, "new")
    refresh_one(store, SONG_CATALOG)
    assert [row["genre"] for row in rows_of(store, SONG_CATALOG.table)] == [None, None]


def test_a_store_with_brackets_and_stars_in_its_path_is_read(tmp_path: Path):
    store = open_store(str(tmp_path / "My [music] * 100%"))
    analyze(store, "song")
    assert refresh_one(store, SONG_CATALOG).file.rows == 1
    analyze(store, "more")
    assert refresh_one(store, SONG_CATALOG).file.rows == 2


def test_a_refresh_reports_its_progress(tmp_path: Path):
    store = open_store(str(tmp_path))
    analyze(store, "song")
    reports: list[str] = []
    list(refresh(store, [SONG_ERRORS], reports.append))
    assert reports and all("song_errors" in sentence for sentence in reports)


SONG = st.sampled_from(["a", "a-b", "c", "d"])
SCORE = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0])
INSTRUMENT = st.sampled_from(["harp", "flute", "sitar", "vocals"])
CHANGES = st.one_of(
    st.tuples(st.just("analyze"), SONG, st.lists(st.tuples(INSTRUMENT, SCORE), max_size=3)),
    st.tuples(st.just("reject"), SONG, st.sampled_from(["empty: 0 bytes", "unavailable: away"])),
    st.tuples(st.just("remove"), SONG, st.none()),
    st.tuples(st.just("lose"), SONG, st.sampled_from(["songs", "stems", "instrument_tags"])),
    st.tuples(st.just("rename"), SONG, st.sampled_from(["Blue", "Green"])),
)


def change(store: ObjectStore, action: str, song: str, how) -> None:
    if action == "analyze":
        tags = [tag_row(song, name, score, 3.0 * start) for start, (name, score) in enumerate(how)]
        analyze(store, song, tags, [tag | {"source": "vocals"} for tag in tags[:1]])
    elif action == "reject":
        reject(store, song, how)
    elif action == "remove":
        remove(store, song)
    elif action == "lose":
        store.delete(f"{how}/{song}.parquet")
    else:
        write_table(store, SONGS, [song_row(song, title=how)], lineage(song))


@settings(max_examples=12)
@given(st.lists(st.lists(CHANGES, max_size=4), max_size=4))
def test_after_any_changes_a_refresh_equals_a_full_build(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[tuple]]
):
    store = open_store(str(tmp_path_factory.mktemp("store")))
    refresh_all(store)
    for changes in steps:
        for each in changes:
            change(store, *each)
        assert not any(done.changes.full for done in refresh_all(store))
    assert_equals_a_full_build(store)
