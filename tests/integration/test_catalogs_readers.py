"""Readers always find a complete catalog: during a refresh, and after a refresh was killed."""

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from catalog_refresher import ALWAYS, REFRESHED, change, songs_of
from catalog_songs import INSTRUMENT_CATALOG, QUALITY, SONG_CATALOG, analyze, rows_of
from long_forms import quick_or_long
from polars.testing import assert_frame_equal
from refreshing_process import kill_in_turn, start
from song_rows import tag_row

from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore
from bandscope_dagster.storage.tables.schemas import Table, catalog_key

TURNS = quick_or_long(12, long=50)


def look(store: ObjectStore, table: Table) -> list[dict]:
    """Read the catalog through one open file."""
    while True:
        try:
            with store.open(catalog_key(table)) as file:
                return pq.read_table(file).to_pylist()
        except ObjectChanged:
            continue  # S3 has no open files: the store raises instead of mixing two versions


def turn_of(rows: list[dict], column: str) -> int:
    """The turn of the rows; all rows must have the same."""
    (value,) = {row[column] for row in rows}
    turn = int(value) if column == "title" else round(value * 128)
    assert [row["song_id"] for row in rows] == songs_of(turn)
    return turn


def test_a_reader_never_sees_a_mix_during_many_refreshes_of_which_one_is_killed(
    request: pytest.FixtureRequest, store: ObjectStore
):
    change(store, 0)
    list(refresh(store, REFRESHED))
    seen: dict[str, Counter[int]] = {"title": Counter(), "score": Counter()}
    errors: list[BaseException] = []
    stop = threading.Event()

    def read(table: Table, column: str) -> None:
        try:
            last = 0
            while not stop.is_set():
                turn = turn_of(look(store, table), column)
                assert turn >= last, "an older catalog after a newer one"
                last = turn
                seen[column][turn] += 1
                stop.wait(0.005)  # the refreshes need the cores too
        except BaseException as error:
            errors.append(error)

    readers = [
        threading.Thread(target=read, args=(SONG_CATALOG.table, "title")),
        threading.Thread(target=read, args=(INSTRUMENT_CATALOG.table, "score")),
    ]
    for reader in readers:
        reader.start()
    try:
        turn = random.randrange(2, TURNS // 2)
        killed = kill_in_turn(start(request, store, 1, TURNS), turn, after_s=random.uniform(0, 0.1))
        after = start(request, store, killed + 1, TURNS)
        assert after.wait(timeout=600) == 0
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert errors == []
    for turns in seen.values():
        assert len(turns) > 1, "it read during the refreshes"
    assert turn_of(look(store, SONG_CATALOG.table), "title") == TURNS


def test_after_a_kill_at_any_moment_a_refresh_equals_a_full_build(
    request: pytest.FixtureRequest, tmp_path: Path
):
    store = open_store(str(tmp_path))
    change(store, 0)
    list(refresh(store, REFRESHED))
    for turn in range(1, quick_or_long(3, long=6) + 1):
        kill_in_turn(start(request, store, turn, turn + 1), turn, after_s=random.uniform(0, 0.25))
        assert [done.changes.full for done in refresh(store, REFRESHED)] == [False] * 2
        found = {each.table.name: rows_of(store, each.table) for each in REFRESHED}
        for each in REFRESHED:
            store.delete(catalog_key(each.table))
        assert [done.changes.full for done in refresh(store, REFRESHED)] == [True] * 2
        for each in REFRESHED:
            assert_frame_equal(pl.DataFrame(found[each.table.name]), pl.DataFrame(rows_of(store, each.table)))


def test_states_of_killed_refreshes_are_deleted_after_a_day(tmp_path: Path):
    store = open_store(str(tmp_path))
    change(store, 0)
    list(refresh(store, REFRESHED))
    states = tmp_path / "_state" / "song_catalog"
    young, old = states / "young.parquet", states / "old.parquet"
    for left in (young, old):
        left.write_bytes(b"")
    os.utime(old, times=(time.time() - 2 * 86_400,) * 2)
    change(store, 2)
    list(refresh(store, REFRESHED))
    assert young.exists() and not old.exists()
    assert len(list(states.iterdir())) == 2, "young.parquet and the state of this refresh"


def test_the_folder_of_a_catalog_contains_only_the_catalog(tmp_path: Path):
    store = open_store(str(tmp_path))
    for turn in range(3):
        change(store, turn)
        list(refresh(store, REFRESHED))
    for catalog in REFRESHED:
        name = catalog.table.name
        assert [path.name for path in (tmp_path / name).iterdir()] == [f"{name}.parquet"]
    assert pl.read_parquet(tmp_path / "song_catalog" / "*.parquet").height == len(ALWAYS)


def test_polars_and_duckdb_read_the_catalog(tmp_path: Path):
    store = open_store(str(tmp_path))
    analyze(store, "song", [tag_row("song", "harp", 0.9, 0.0)], quality=QUALITY)
    (done,) = refresh(store, [SONG_CATALOG])
    path = done.file.uri
    assert pl.read_parquet(path)["top_instruments"][0][0]["instrument"] == "harp"
    assert pl.read_parquet(path)["instruments"][0][0]["sources"] == ["mixture"]
    silent = f"select stem.stem from (select unnest(stem_quality) as stem from '{path}') where stem.silent"
    assert duckdb.sql(silent).fetchall() == [("drums",)]
    assert duckdb.sql(f"select top_instruments[1].instrument from '{path}'").fetchall() == [("harp",)]
    assert duckdb.sql(f"select instruments[1].sources from '{path}'").fetchall() == [(["mixture"],)]
