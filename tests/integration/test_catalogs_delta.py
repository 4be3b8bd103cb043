"""The Delta tables of the catalogs have the rows of the plain files, in versions, whatever happens to a refresh."""

import errno
import json
import os
import random
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from catalog_songs import (
    CATALOGS,
    INSTRUMENT_CATALOG,
    SONG_CATALOG,
    SONG_ERRORS,
    analyze,
    reject,
    remove,
    rows_of,
    with_a_flipped_bit,
)
from delta_tables import (
    READERS,
    assert_equal_forms,
    delta_rows,
    newest_log,
    opened,
    polars_options,
    refresh_ids,
    set_time,
    uri_of,
)
from deltalake import DeltaTable
from faulty_proxy import Fault, FaultyProxy
from polars.testing import assert_frame_equal
from s3_server import S3Server
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.catalogs.refresh import Catalog, are_current, outdated_catalogs, refresh
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore, PendingObject
from bandscope_dagster.storage.tables.delta_files import FileWriter
from bandscope_dagster.storage.tables.delta_history import NoSuchVersion, catalog_versions, files_at
from bandscope_dagster.storage.tables.delta_log import (
    DataFile,
    commit,
    delta_key,
    newest_version,
    open_delta,
    table_properties,
)
from bandscope_dagster.storage.tables.delta_upkeep import tidy
from bandscope_dagster.storage.tables.schemas import SONGS, Table, catalog_key
from bandscope_dagster.storage.tables.song_files import list_song_files
from bandscope_dagster.storage.tables.song_tables import write_table

TABLES = [catalog.table for catalog in CATALOGS]


def harp(song: str, score: float = 0.5) -> list[dict]:
    return [tag_row(song, "harp", score, 0.0)]


def refresh_all(store: ObjectStore) -> None:
    assert [*refresh(store, CATALOGS)]


def small(catalog: Catalog, rows: int = 2) -> Catalog:
    """The catalog with this many rows in a file of its Delta table."""
    return replace(catalog, layout=replace(catalog.layout, file_rows=rows))


def overwrite(store: ObjectStore, key: str, data: bytes) -> None:
    with store.create(key) as pending:
        pending.write(data)


def titled(store: ObjectStore, song: str, title: str) -> None:
    write_table(store, SONGS, [song_row(song, title=title)], lineage(song))


def files_of(store: ObjectStore, table: Table) -> set[str]:
    found = newest_version(store, table)
    assert found is not None
    return {each.path for each in found.files}


def data_key(store: ObjectStore, table: Table) -> str:
    """The key of the data file of the newest version with the first song, which is read if this song changes."""
    found = newest_version(store, table)
    assert found is not None
    return f"{delta_key(table)}/{min(found.files, key=lambda each: each.first).path}"


def versions(store: ObjectStore, table: Table) -> list[int]:
    return [each.number for each in catalog_versions(store, table)]


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_finds_the_rows_of_the_plain_file(store: ObjectStore, reader: str):
    for song in ("a", "b", "c"):
        analyze(store, song, harp(song))
    reject(store, "bad", "empty: 0 bytes")
    refresh_all(store)
    analyze(store, "b", harp("b", 0.75))
    analyze(store, "d", harp("d"))
    remove(store, "c")
    refresh_all(store)
    columns = ["song_id", "score"]
    read = READERS[reader]
    assert read(store, INSTRUMENT_CATALOG.table, columns) == [("a", 0.5), ("b", 0.75), ("d", 0.5)]
    assert [row[0] for row in read(store, SONG_CATALOG.table, ["song_id"])] == ["a", "b", "bad", "d"]
    assert {row[0] for row in read(store, SONG_ERRORS.table, ["song_id"])} == {"bad"}
    assert_equal_forms(store, *TABLES)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_filters_by_any_column_find_its_rows(store: ObjectStore, checkpoint: bool):
    """Only song_id has statistics; a reader must not take missing ones for bounds."""
    for number in range(6):
        analyze(store, f"song-{number}", harp(f"song-{number}", number / 8))
    reject(store, "bad", "empty: 0 bytes")
    [*refresh(store, [small(SONG_CATALOG), small(INSTRUMENT_CATALOG)])]
    if checkpoint:
        for table in TABLES[:2]:
            tidy(store, table, 30, vacuum=False)
    songs, instruments = (opened(store, table) for table in TABLES[:2])
    is_bad = ds.field("status") == "rejected"
    assert songs.to_pyarrow_dataset().to_table(filter=is_bad)["song_id"].to_pylist() == ["bad"]
    assert songs.to_pandas(filters=[("status", "=", "rejected")])["song_id"].tolist() == ["bad"]
    with duckdb.connect() as connection:
        connection.register("catalog", instruments.to_pyarrow_dataset())
        found = "SELECT song_id FROM catalog WHERE score > 0.5 AND instrument = 'harp' AND layer IS NULL"
        assert connection.sql(found).fetchall() == [("song-5",)]
        one = "SELECT score FROM catalog WHERE song_id = 'song-3'"
        assert connection.sql(one).fetchall() == [(0.375,)]
    rows = pl.scan_delta(uri_of(store, INSTRUMENT_CATALOG.table), storage_options=polars_options(store))
    assert rows.filter(pl.col("score") > 0.5).collect()["song_id"].to_list() == ["song-5"]
    assert rows.filter(pl.col("song_id") == "song-3").collect()["score"].to_list() == [0.375]


def test_types_nulls_and_descriptions_of_the_columns_are_those_of_the_plain_file(store: ObjectStore):
    analyze(store, "a", harp("a"))
    refresh_all(store)
    for table in TABLES:
        schema = pa.schema(opened(store, table).schema())
        assert schema.names == list(table.names)
        for column in table.columns:
            found = schema.field(column.name)
            assert found.nullable == column.nullable
            assert found.metadata[b"description"].decode() == column.description
            assert found.metadata.get(b"unit", b"").decode() == column.unit
        stored = opened(store, table).to_pyarrow_dataset().to_table()
        assert stored.cast(table.schema).schema.equals(table.schema)
        assert opened(store, table).metadata().description == table.description


def test_an_empty_store_has_an_empty_table_with_all_columns(store: ObjectStore):
    refresh_all(store)
    for table in TABLES:
        assert delta_rows(store, table).is_empty()
        assert delta_rows(store, table).columns == list(table.names)
    analyze(store, "a", harp("a"))
    refresh_all(store)
    assert_equal_forms(store, *TABLES)


def test_a_commit_names_its_refresh_and_what_it_changed(store: ObjectStore):
    for song in ("a", "b", "c"):
        titled(store, song, "first")
    refresh_all(store)
    titled(store, "b", "second")
    titled(store, "d", "first")
    titled(store, "e", "first")
    remove(store, "c")
    refresh_all(store)
    newest, first = catalog_versions(store, SONG_CATALOG.table)
    assert (first.number, first.songs, first.added, first.changed, first.removed) == (0, 3, 3, 0, 0)
    assert (newest.number, newest.songs, newest.added, newest.changed, newest.removed) == (1, 4, 2, 1, 1)
    assert newest.kept and first.kept
    assert abs(datetime.now(UTC) - newest.committed_at) < timedelta(minutes=5)
    (entry,) = opened(store, SONG_CATALOG.table).history(1)
    assert entry["bandscope.made_with"] == SONG_CATALOG.made_with
    assert "polars" not in json.loads(entry["bandscope.software"])
    assert json.loads(entry["bandscope.software"])["pyarrow"] == pa.__version__
    assert newest.refresh_id == entry["bandscope.refresh_id"] == refresh_ids(store, SONG_CATALOG.table)[1]


def test_without_changes_there_is_no_new_version_and_nothing_is_written(store: ObjectStore):
    analyze(store, "a", harp("a"))
    refresh_all(store)
    before = list(store.list())
    refresh_all(store)
    assert list(store.list()) == before


def test_only_files_with_changed_songs_are_written_again(tmp_path: Path):
    store = open_store(str(tmp_path))
    catalog = small(SONG_CATALOG)
    for number in range(20):
        titled(store, f"song-{number:02}", "first")
    [*refresh(store, [catalog])]
    before = files_of(store, catalog.table)
    assert len(before) == 10
    titled(store, "song-03", "second")
    titled(store, "new", "first")
    remove(store, "song-10")
    [*refresh(store, [catalog])]
    after = files_of(store, catalog.table)
    assert len(before - after) == 2 and len(after - before) == 3
    assert_equal_forms(store, catalog.table)


def test_many_small_files_become_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bandscope_dagster.storage.tables.delta_files.MOST_SMALL", 4)
    store = open_store(str(tmp_path))
    catalog = small(SONG_CATALOG, rows=1000)
    seen: list[int] = []
    for number in range(7):
        titled(store, f"song-{number:02}", "first")
        [*refresh(store, [catalog])]
        seen.append(len(files_of(store, catalog.table)))
    assert seen == [1, 2, 3, 4, 1, 2, 3]
    assert_equal_forms(store, catalog.table)


def test_all_rows_of_a_song_are_in_one_file_and_a_file_has_neighbours(tmp_path: Path):
    store = open_store(str(tmp_path))
    for number in range(12):
        song = f"song-{number:02}"
        analyze(store, song, [tag_row(song, name, 0.5, 0.0) for name in ("harp", "flute", "banjo")])
    catalog = small(INSTRUMENT_CATALOG, rows=9)
    [*refresh(store, [catalog])]
    found = newest_version(store, catalog.table)
    assert found is not None
    assert sorted((each.first, each.last, each.rows) for each in found.files) == [
        (f"song-{start:02}", f"song-{start + 2:02}", 9) for start in range(0, 12, 3)
    ]
    rows = pl.read_parquet(tmp_path / data_key(store, catalog.table))
    assert_frame_equal(rows, catalog.layout.sort(rows))


def test_a_table_with_other_columns_or_settings_has_all_rows_in_one_new_version(store: ObjectStore):
    for song in ("a", "b"):
        analyze(store, song)
    table = SONG_CATALOG.table
    older = replace(
        SONG_CATALOG, layout=replace(SONG_CATALOG.layout, table=replace(table, columns=table.columns[:-1]))
    )
    [*refresh(store, [older])]
    [*refresh(store, [SONG_CATALOG])]
    assert versions(store, table) == [1, 0]
    assert delta_rows(store, table).columns == list(table.names)
    assert delta_rows(store, table, 0).columns == list(table.names[:-1]), "the old version has its columns"
    assert_equal_forms(store, table)
    newest = next(catalog_versions(store, table))
    assert (newest.added, newest.changed, newest.removed) == (0, 2, 0)


def test_an_earlier_version_is_read_by_number_and_by_time(store: ObjectStore):
    table = SONG_CATALOG.table
    for turn in range(3):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG])]
    times = [each.committed_at for each in reversed([*catalog_versions(store, table)])]
    for turn in range(3):
        assert delta_rows(store, table, turn)["title"].to_list() == [str(turn)]
        keys = files_at(store, table, times[turn])
        assert [pl.read_parquet(store.read(key))["title"][0] for key in keys] == [str(turn)]
    with pytest.raises(NoSuchVersion, match="the oldest version that is kept is of"):
        files_at(store, table, times[0] - timedelta(seconds=1))


def lose_table(store: ObjectStore) -> None:
    for found in list(store.list(delta_key(SONG_CATALOG.table))):
        store.delete(found.key)


def lose_log(store: ObjectStore) -> None:
    for found in list(store.list(f"{delta_key(SONG_CATALOG.table)}/_delta_log")):
        store.delete(found.key)


def lose_the_beginning(store: ObjectStore) -> None:
    """All of the log but the newest commit."""
    newest = newest_log(store, SONG_CATALOG.table)
    for found in list(store.list(f"{delta_key(SONG_CATALOG.table)}/_delta_log")):
        if found.key != newest:
            store.delete(found.key)


def break_commit(store: ObjectStore) -> None:
    overwrite(store, newest_log(store, SONG_CATALOG.table), b'{"add": {"pa')


def put_a_foreign_log(store: ObjectStore) -> None:
    overwrite(store, newest_log(store, SONG_CATALOG.table), b"something else\n")


def lose_data(store: ObjectStore) -> None:
    store.delete(data_key(store, SONG_CATALOG.table))


def cut_data(store: ObjectStore) -> None:
    key = data_key(store, SONG_CATALOG.table)
    overwrite(store, key, store.read(key)[:100])


def damage_bytes(store: ObjectStore) -> None:
    """The file keeps its size and its footer."""
    key = data_key(store, SONG_CATALOG.table)
    overwrite(store, key, with_zeros_before_the_footer(store.read(key)))


def flip_a_bit(store: ObjectStore) -> None:
    """In the songs' ids."""
    key = data_key(store, SONG_CATALOG.table)
    overwrite(store, key, with_a_flipped_bit(store.read(key)))


def with_zeros_before_the_footer(data: bytes) -> bytes:
    footer = int.from_bytes(data[-8:-4], "little") + 8
    return b"PAR1" + bytes(len(data) - footer - 4) + data[-footer:]


def lose_newest_commit(store: ObjectStore) -> None:
    """The state after a kill between the plain file and the commit."""
    store.delete(newest_log(store, SONG_CATALOG.table))


DAMAGE = [
    lose_table,
    lose_log,
    lose_the_beginning,
    break_commit,
    put_a_foreign_log,
    lose_data,
    cut_data,
    lose_newest_commit,
]


@pytest.mark.parametrize("damage", [*DAMAGE, damage_bytes, flip_a_bit])
def test_a_table_that_is_missing_damaged_or_behind_is_made_again_also_without_changes(
    store: ObjectStore, damage: Callable[[ObjectStore], None]
):
    assert_made_again(store, damage, changed=False)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_table_that_is_missing_damaged_or_behind_is_made_again_with_changes(
    tmp_path: Path, damage: Callable[[ObjectStore], None]
):
    assert_made_again(open_store(str(tmp_path)), damage, changed=True)


def assert_made_again(store: ObjectStore, damage: Callable[[ObjectStore], None], *, changed: bool) -> None:
    for song in ("a", "b"):
        titled(store, song, "first")
    [*refresh(store, [SONG_CATALOG])]
    titled(store, "a", "second")
    [*refresh(store, [SONG_CATALOG])]
    damage(store)
    files = list_song_files(store, SOURCES)
    assert [name for name, _ in outdated_catalogs(store, [SONG_CATALOG], files)] == ["song_catalog"]
    if changed:
        titled(store, "a", "third")
    (done,) = refresh(store, [SONG_CATALOG])
    assert not done.changes.full, "the plain catalog was whole"
    assert_equal_forms(store, SONG_CATALOG.table)
    assert are_current(store, [SONG_CATALOG], list_song_files(store, SOURCES))
    before = [each.key for each in store.list(delta_key(SONG_CATALOG.table))]
    [*refresh(store, [SONG_CATALOG])]
    assert [each.key for each in store.list(delta_key(SONG_CATALOG.table))] == before


def test_bytes_of_a_file_that_are_damaged_are_found_when_it_is_written_again(tmp_path: Path):
    store = open_store(str(tmp_path))
    catalog = small(SONG_CATALOG)
    for number in range(6):
        titled(store, f"song-{number}", "first")
    [*refresh(store, [catalog])]
    found = newest_version(store, catalog.table)
    assert found is not None
    (first,) = [each for each in found.files if each.first == "song-0"]
    path = tmp_path / delta_key(catalog.table) / first.path
    path.write_bytes(with_zeros_before_the_footer(path.read_bytes()))
    titled(store, "song-0", "second")
    [*refresh(store, [catalog])]
    assert_equal_forms(store, catalog.table)


@pytest.mark.parametrize("lost", [True, False])
def test_a_refresh_with_changes_finds_lost_and_overwritten_files_that_it_need_not_change(
    store: ObjectStore, lost: bool
):
    catalog = small(SONG_CATALOG)
    for turn in range(2):
        for number in range(8):
            titled(store, f"song-{number}", str(turn))
        [*refresh(store, [catalog])]
    found = newest_version(store, catalog.table)
    assert found is not None
    (last,) = [each for each in found.files if each.last == "song-7"]
    key = f"{delta_key(catalog.table)}/{last.path}"
    if lost:
        store.delete(key)
    else:
        overwrite(store, key, b"junk")
    titled(store, "song-0", "2")
    [*refresh(store, [catalog])]
    assert_equal_forms(store, catalog.table)


def test_a_table_with_a_damaged_log_moves_to_the_trash_with_its_versions(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
):
    for title in ("first", "second"):
        titled(store, "a", title)
        [*refresh(store, [SONG_CATALOG])]
    key = newest_log(store, SONG_CATALOG.table)
    kept = store.read(key)
    overwrite(store, key, b"{broken")
    [*refresh(store, [SONG_CATALOG])]
    assert delta_rows(store, SONG_CATALOG.table)["title"].to_list() == ["second"]
    (log,) = {each.key.rpartition("/")[0] for each in store.list("trash") if "/_delta_log/" in each.key}
    place = log.removesuffix("/_delta_log")
    assert f"is now in {store.uri(place)}" in caplog.text
    # A person who has the lost entry has the versions again.
    lost = [each.key for each in store.list(log) if store.read(each.key) == b"{broken"]
    overwrite(store, lost[0], kept)
    rows = DeltaTable(store.uri(place), version=0, storage_options=store.delta_options()).to_pyarrow_table()
    assert rows["title"].to_pylist() == ["first"]


def test_a_plain_file_that_is_older_than_the_table_is_completed_by_the_next_refresh(store: ObjectStore):
    """As a refresh leaves it that replaces the plain file of a faster one, and is killed before the commit."""
    for song in ("a", "b"):
        titled(store, song, "first")
    [*refresh(store, [SONG_CATALOG])]
    (state,) = store.list("_state/song_catalog")
    kept = {key: store.read(key) for key in (state.key, catalog_key(SONG_CATALOG.table))}
    titled(store, "a", "second")
    titled(store, "c", "first")
    [*refresh(store, [SONG_CATALOG])]
    newer = {each.key for each in store.list("_state/song_catalog")}
    for key, data in kept.items():
        overwrite(store, key, data)
    assert not are_current(store, [SONG_CATALOG], list_song_files(store, SOURCES))
    (done,) = refresh(store, [SONG_CATALOG])
    assert len(done.changes.to_read) == 2 and not done.changes.full
    assert_equal_forms(store, SONG_CATALOG.table)
    newest = next(catalog_versions(store, SONG_CATALOG.table))
    assert (newest.added, newest.changed, newest.removed) == (0, 0, 0), "both were in the version before"
    states = {each.key for each in store.list("_state/song_catalog")}
    assert newer < states, "the refresh of the table may be running, and is about to write its plain file"
    assert state.key not in states and len(states) == 2


def test_of_two_commits_on_one_version_one_is_refused(store: ObjectStore):
    titled(store, "a", "first")
    [*refresh(store, [SONG_CATALOG])]
    base = newest_version(store, SONG_CATALOG.table)
    assert base is not None
    refused: list[BaseException] = []
    barrier = threading.Barrier(4)

    def make(name: str) -> None:
        barrier.wait()
        try:
            commit(store, SONG_CATALOG.table, base, (), (), {"refresh_id": name * 32}, table_properties(30))
        except ObjectChanged as error:
            refused.append(error)

    threads = [threading.Thread(target=make, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    assert versions(store, SONG_CATALOG.table) == [1, 0]


def test_refreshes_at_the_same_time_lose_nothing(store: ObjectStore):
    """Each thread adds songs and refreshes; no version lacks a song that an earlier one has."""
    refresh_all(store)
    errors: list[BaseException] = []

    def work(who: str) -> None:
        try:
            for number in range(2):
                analyze(store, f"{who}-{number}", harp(f"{who}-{number}"))
                refresh_all(store)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in ("mia", "noa", "ada")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    wanted = {f"{who}-{number}" for who in ("mia", "noa", "ada") for number in range(2)}
    for table in (SONG_CATALOG.table, INSTRUMENT_CATALOG.table):
        before: set[str] = set()
        for number in range(opened(store, table).version() + 1):
            now = set(delta_rows(store, table, number)["song_id"])
            assert before <= now, f"version {number} of {table.name} lacks {before - now}"
            before = now
        assert before == wanted, "without one more refresh"
    refresh_all(store)
    assert_equal_forms(store, *TABLES)


def test_files_of_old_versions_and_of_killed_refreshes_are_deleted_after_the_retention(tmp_path: Path):
    store = open_store(str(tmp_path))
    table = SONG_CATALOG.table
    for turn in range(3):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG], history_days=1)]
    folder = tmp_path / delta_key(table)
    orphan = folder / "part-0.zstd.parquet"
    shutil.copy(tmp_path / data_key(store, table), orphan)
    young = folder / "part-1.zstd.parquet"
    shutil.copy(orphan, young)
    assert len(list(folder.glob("*.parquet"))) == 5
    tidy(store, table, 1, vacuum=True)
    assert len(list(folder.glob("*.parquet"))) == 5, "all are younger than a day"
    log = json.loads((folder / "_delta_log" / f"{1:020}.json").read_text().splitlines()[0])
    assert log["commitInfo"]["bandscope.songs_changed"] == "1"
    age(folder, 3 * 86_400)
    young.touch()
    titled(store, "a", "3")
    [*refresh(store, [SONG_CATALOG], history_days=1)]  # its first commit of the day
    assert young.exists() and not orphan.exists()
    assert len(list(folder.glob("*.parquet"))) == 3, "this version, the one before, and the young file"
    newest, before, *older = catalog_versions(store, table)
    assert newest.kept and before.kept and not any(each.kept for each in older)
    assert delta_rows(store, table, before.number)["title"].to_list() == ["2"]
    with pytest.raises(NoSuchVersion, match="the oldest version that is kept is of"):
        files_at(store, table, before.committed_at - timedelta(hours=1))


def age(folder: Path, seconds: float) -> None:
    """Make the table as it were if it had been written so much earlier."""
    for path in (folder / "_delta_log").iterdir():
        if path.suffix != ".json":
            path.unlink()  # checkpoints, which have times inside
            continue
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            for values in action.values():
                for name in ("timestamp", "modificationTime", "deletionTimestamp", "createdTime"):
                    if name in values:
                        values[name] -= round(seconds * 1000)
        path.write_text("\n".join(map(json.dumps, actions)))
    for path in folder.rglob("*"):
        if path.is_file():
            set_time(str(path), seconds)


def test_the_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bandscope_dagster.catalogs.delta.CHECKPOINT_EVERY", 3)
    store = open_store(str(tmp_path))
    table = SONG_CATALOG.table
    for turn in range(5):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG], history_days=1)]
    log = tmp_path / delta_key(table) / "_delta_log"
    assert len(list(log.glob("*.json"))) == 5
    assert list(log.glob(f"{3:020}.checkpoint.parquet")), "readers read the commits after it only"
    for path in [*log.iterdir(), log.parent / "_last_vacuum"]:
        set_time(str(path), 3 * 86_400)
    for turn in range(5, 9):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG], history_days=1)]
    assert not (log / f"{0:020}.json").exists()
    assert sorted(int(path.stem) for path in log.glob("*.json")) == [3, 4, 5, 6, 7, 8]
    assert_equal_forms(store, table)


def test_of_checkpoints_one_a_day_is_kept_and_every_version_can_be_read(tmp_path: Path):
    store = open_store(str(tmp_path))
    table = SONG_CATALOG.table
    for turn in range(7):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG])]
        tidy(store, table, 30, vacuum=False)
    log = tmp_path / delta_key(table) / "_delta_log"
    checkpoints = sorted(log.glob("*.checkpoint.parquet"))
    noon = datetime.now(UTC).replace(hour=12, minute=0).timestamp()
    for path, days_ago in zip(checkpoints, [3, 3, 3, 2, 2, 0, 0], strict=True):
        if days_ago:
            os.utime(path, (noon - days_ago * 86_400,) * 2)
    tidy(store, table, 30, vacuum=True)
    assert [int(path.name[:20]) for path in sorted(log.glob("*.checkpoint.parquet"))] == [2, 4, 5, 6]
    for turn in range(7):
        assert delta_rows(store, table, turn)["title"].to_list() == [str(turn)]
    day = 86_400
    for path in log.glob("*.json"):
        set_time(str(path), (40 if int(path.stem) < 4 else 0) * day)
    tidy(store, table, 30, vacuum=True)
    assert versions(store, table) == [6, 5, 4, 3, 2], "the checkpoint before the version of 30 days ago"
    assert delta_rows(store, table, 3)["title"].to_list() == ["3"]


def counted_vacuums(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry per upkeep: True if it was a vacuum."""
    seen: list[bool] = []

    def counted(store: ObjectStore, table: Table, days: int, *, vacuum: bool) -> None:
        seen.append(vacuum)
        tidy(store, table, days, vacuum=vacuum)

    monkeypatch.setattr("bandscope_dagster.catalogs.delta.tidy", counted)
    return seen


def test_a_store_with_a_checkpoint_every_hour_has_its_vacuum_once_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("bandscope_dagster.catalogs.delta.CHECKPOINT_EVERY", 2)
    store = open_store(str(tmp_path))
    seen = counted_vacuums(monkeypatch)
    for turn in range(5):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG])]
    assert seen == [True, False, False]
    marker = tmp_path / delta_key(SONG_CATALOG.table) / "_last_vacuum"
    set_time(str(marker), 90_000)  # the checkpoints are young
    titled(store, "a", "5")
    [*refresh(store, [SONG_CATALOG])]
    assert seen == [True, False, False, True]
    tidy(store, SONG_CATALOG.table, 0, vacuum=True)
    assert marker.exists(), "a vacuum leaves it alone"


def test_a_store_without_changes_has_its_vacuum_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = open_store(str(tmp_path))
    seen = counted_vacuums(monkeypatch)
    for turn in range(2):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG])]
    folder = tmp_path / delta_key(SONG_CATALOG.table)
    for path in folder.rglob("*"):
        set_time(str(path), 90_000)
    for _ in range(3):
        [*refresh(store, [SONG_CATALOG])]
    assert seen == [True, True], "that of the second version, and one for the next day"


def test_a_fault_of_the_upkeep_is_a_warning(
    s3_server: S3Server, faulty_proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
):
    store = s3_server.place(faulty_proxy.endpoint).open()
    titled(store, "a", "0")
    [*refresh(store, [SONG_CATALOG])]
    titled(store, "a", "1")
    rule = faulty_proxy.fail("_last_vacuum", "403", method="PUT")
    [*refresh(store, [SONG_CATALOG])]
    assert rule.matched and "could not be removed" in caplog.text
    assert_equal_forms(store, SONG_CATALOG.table)


def test_a_new_retention_is_that_of_the_next_version(tmp_path: Path):
    store = open_store(str(tmp_path))
    titled(store, "a", "0")
    [*refresh(store, [SONG_CATALOG])]
    assert opened(store, SONG_CATALOG.table).metadata().configuration == table_properties(30)
    titled(store, "a", "1")
    [*refresh(store, [SONG_CATALOG], history_days=7)]
    assert opened(store, SONG_CATALOG.table).metadata().configuration == table_properties(7)


@pytest.mark.parametrize("prefix", ["été [music] * 100%", "a+b&c=d #1?"])
@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_store_with_any_name_is_read_and_written(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, prefix: str
):
    if kind == "local":
        store = open_store(str(tmp_path / prefix))
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        place = server.place()
        store = replace(place, url=f"{place.url}/{prefix}").open()
    for turn in range(3):
        titled(store, "a", str(turn))
        [*refresh(store, [SONG_CATALOG])]
    for name in ("pandas", "duckdb"):
        assert READERS[name](store, SONG_CATALOG.table, ["title"]) == [("2",)]
    # Polars' own reader takes the escapes of a local URL for the path: the page has this way instead.
    rows = pl.scan_pyarrow_dataset(opened(store, SONG_CATALOG.table).to_pyarrow_dataset())
    assert rows.collect()["title"].to_list() == ["2"]
    assert_equal_forms(store, SONG_CATALOG.table)
    assert versions(store, SONG_CATALOG.table) == [2, 1, 0]
    tidy(store, SONG_CATALOG.table, 0, vacuum=True)
    assert len(files_of(store, SONG_CATALOG.table)) == 1
    names = [each.key for each in store.list(delta_key(SONG_CATALOG.table))]
    assert len([name for name in names if name.endswith(".zstd.parquet")]) == 1
    assert_equal_forms(store, SONG_CATALOG.table)


def test_in_a_path_with_an_escape_of_urls_there_are_plain_catalogs_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = open_store(str(tmp_path / "My%20Music"))
    titled(store, "a", "0")
    [*refresh(store, [SONG_CATALOG])]
    assert [row["title"] for row in rows_of(store, SONG_CATALOG.table)] == ["0"]
    assert not (tmp_path / "My%20Music" / "delta").exists()
    assert "no Delta tables" in caplog.text
    assert are_current(store, [SONG_CATALOG], list_song_files(store, SOURCES))


def test_a_fault_of_the_delta_form_is_an_error_that_names_the_folder_and_the_plain_file_is_made(
    tmp_path: Path,
):
    store = open_store(str(tmp_path))
    titled(store, "a", "0")
    (tmp_path / "delta").write_text("a file in the place of the folder")
    with pytest.raises(OSError, match="delta"):
        [*refresh(store, [SONG_CATALOG])]
    assert [row["title"] for row in rows_of(store, SONG_CATALOG.table)] == ["0"]
    (tmp_path / "delta").unlink()
    [*refresh(store, [SONG_CATALOG])]
    assert_equal_forms(store, SONG_CATALOG.table)


def test_a_fault_of_one_table_stops_neither_the_plain_files_nor_the_other_tables(tmp_path: Path):
    store = open_store(str(tmp_path))
    analyze(store, "a", harp("a"))
    refresh_all(store)
    analyze(store, "b", harp("b"))
    broken = tmp_path / delta_key(INSTRUMENT_CATALOG.table)  # the first of the catalogs
    broken.rename(tmp_path / "aside")
    broken.write_text("a file in the place of the folder")
    names: list[str] = []
    with pytest.raises(OSError, match=broken.name):
        for done in refresh(store, CATALOGS):
            names.append(done.file.key)
    assert names == [catalog_key(each.table) for each in CATALOGS]
    assert {row["song_id"] for row in rows_of(store, INSTRUMENT_CATALOG.table)} == {"a", "b"}
    others = [table for table in TABLES if table is not INSTRUMENT_CATALOG.table]
    assert_equal_forms(store, *others)
    broken.unlink()
    (tmp_path / "aside").rename(broken)
    refresh_all(store)
    assert_equal_forms(store, *TABLES)
    assert next(catalog_versions(store, INSTRUMENT_CATALOG.table)).added == 1, "its state was kept"


def test_on_s3_a_table_that_cannot_be_opened_stops_no_plain_file(
    s3_server: S3Server, faulty_proxy: FaultyProxy
):
    store = s3_server.place(faulty_proxy.endpoint).open()
    titled(store, "a", "0")
    refresh_all(store)
    titled(store, "a", "1")
    faulty_proxy.fail("delta/", "403")
    with pytest.raises(OSError, match="delta"):
        [*refresh(store, CATALOGS)]
    assert [row["title"] for row in rows_of(store, SONG_CATALOG.table)] == ["1"]
    faulty_proxy.heal()
    refresh_all(store)
    assert_equal_forms(store, *TABLES)


@pytest.mark.parametrize("broken", ["data", "commit"])
def test_a_version_that_fails_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str):
    store = open_store(str(tmp_path))
    catalog = small(SONG_CATALOG)
    for number in range(8):
        titled(store, f"song-{number}", "0")
    [*refresh(store, [catalog])]
    before = sorted(tmp_path.glob("delta/**/*.parquet"))
    create = LocalStore.create

    def create_until_full(self: LocalStore, key: str) -> PendingObject:
        if key.startswith("delta/") and len(list(tmp_path.glob("delta/**/*.parquet"))) > len(before) + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(self, key)

    def put_nothing(self: LocalStore, key: str, data: bytes) -> bool:
        raise OSError(errno.EROFS, f"Read-only file system: {key}")

    with monkeypatch.context() as patched:
        if broken == "data":
            patched.setattr(LocalStore, "create", create_until_full)
        else:
            patched.setattr(LocalStore, "put_new", put_nothing)
        for number in range(8):
            titled(store, f"song-{number}", "1")
        with pytest.raises(OSError, match=r"No space|Read-only"):
            [*refresh(store, [catalog])]
    assert sorted(tmp_path.glob("delta/**/*.parquet")) == before
    [*refresh(store, [catalog])]
    assert_equal_forms(store, catalog.table)


def test_a_commit_that_is_made_although_it_fails_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(str(tmp_path))
    titled(store, "a", "0")
    put_new = LocalStore.put_new

    def put_and_fail(self: LocalStore, key: str, data: bytes) -> bool:
        put_new(self, key, data)
        raise OSError(errno.EROFS, f"Read-only file system: {key}")

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "put_new", put_and_fail)
        with pytest.raises(OSError, match="Read-only"):
            [*refresh(store, [SONG_CATALOG])]
    assert_equal_forms(store, SONG_CATALOG.table)
    assert are_current(store, [SONG_CATALOG], list_song_files(store, SOURCES))


def test_a_bounded_number_of_new_songs_is_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bandscope_dagster.storage.tables.delta_files.SONGS_AT_ONCE", 3)
    heights: list[int] = []
    write = FileWriter._write

    def measured(self: FileWriter, rows: pl.DataFrame) -> list[DataFile]:
        heights.append(rows.height)
        return write(self, rows)

    monkeypatch.setattr(FileWriter, "_write", measured)
    store = open_store(str(tmp_path))
    for number in range(4):
        titled(store, f"song-{number}", "first")
    [*refresh(store, [SONG_CATALOG])]
    for number in range(3, 11):
        titled(store, f"song-{number}", "second")
    [*refresh(store, [SONG_CATALOG])]
    assert heights == [3, 1, 3, 3, 2]
    assert_equal_forms(store, SONG_CATALOG.table)


def test_on_s3_wrong_keys_are_named_and_never_printed(s3_server: S3Server):
    place = s3_server.place()
    store = place.open()
    titled(store, "a", "0")
    [*refresh(store, [SONG_CATALOG])]
    wrong = replace(place, secret_access_key="wrong-secret-key").open()
    with pytest.raises(OSError, match="BANDSCOPE_S3_SECRET_ACCESS_KEY") as error:
        open_delta(wrong, SONG_CATALOG.table)
    assert "wrong-secret-key" not in str(error.value)


def test_the_folders_of_plain_catalogs_and_songs_have_no_delta_files(tmp_path: Path):
    store = open_store(str(tmp_path))
    analyze(store, "a", harp("a"))
    refresh_all(store)
    for table in TABLES:
        assert [path.name for path in (tmp_path / table.name).iterdir()] == [f"{table.name}.parquet"]
        assert list(tmp_path.glob(f"*/{table.name}/_delta_log")) == [
            tmp_path / "delta" / table.name / "_delta_log"
        ]
        assert uri_of(store, table) == str(tmp_path / "delta" / table.name)


def test_random_changes_leave_both_forms_equal(tmp_path: Path):
    store = open_store(str(tmp_path))
    catalogs = [small(each, rows=3) for each in CATALOGS]
    dice = random.Random(20)
    for _ in range(8):
        for _ in range(dice.randrange(4)):
            song = f"song-{dice.randrange(9)}"
            action = dice.choice(["analyze", "analyze", "reject", "remove"])
            if action == "analyze":
                names = dice.sample(["harp", "flute", "sitar"], dice.randrange(4))
                analyze(store, song, [tag_row(song, name, dice.random(), 0.0) for name in names])
            elif action == "reject":
                reject(store, song, "empty: 0 bytes")
            else:
                remove(store, song)
        [*refresh(store, catalogs)]
        assert_equal_forms(store, *TABLES)


@pytest.mark.parametrize("fault", ["lost", "503", "reset"])
def test_a_commit_whose_answer_is_lost_or_that_fails_for_a_moment_is_made_once(
    s3_server: S3Server, faulty_proxy: FaultyProxy, fault: Fault
):
    store = s3_server.place(faulty_proxy.endpoint).open()
    titled(store, "a", "0")
    [*refresh(store, [SONG_CATALOG])]
    titled(store, "a", "1")
    rule = faulty_proxy.fail(r"_delta_log/0+1\.json", fault, method="PUT", times=1)
    [*refresh(store, [SONG_CATALOG])]
    assert rule.matched == 1
    assert versions(store, SONG_CATALOG.table) == [1, 0]
    assert_equal_forms(store, SONG_CATALOG.table)
    read = faulty_proxy.fail("_delta_log", "503", method="GET", times=2)
    tidy(store, SONG_CATALOG.table, 0, vacuum=True)
    assert read.matched == 2
    assert_equal_forms(store, SONG_CATALOG.table)
