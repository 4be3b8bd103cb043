"""The files that songs lack: missing ones by a listing, damaged ones by footers and by ``song_errors``."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_songs import CATALOGS, analyze

from bandscope_dagster.catalogs.refresh import are_current, refresh
from bandscope_dagster.songs.lacking import damage_told_of, find_lacking
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_TABLES
from bandscope_dagster.storage.tables.song_files import list_all_files

TABLES = [table.name for table in SONG_TABLES]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Two songs, and their catalogs."""
    store = open_store(str(tmp_path))
    for song in ("one", "two"):
        analyze(store, song)
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)
    return store


def replace(store: ObjectStore, key: str, content: bytes) -> None:
    with store.create(key) as pending:
        pending.write(content)


def lacking(store: ObjectStore, songs: tuple[str, ...] = ("one", "two")):
    return find_lacking(list_all_files(store, SOURCES), songs, TABLES)


def test_a_complete_store_lacks_nothing(store: ObjectStore) -> None:
    assert lacking(store).songs == set()


def test_missing_files_are_found_also_of_songs_without_any(store: ObjectStore) -> None:
    store.delete("stems/one.parquet")
    found = lacking(store, ("one", "new"))
    assert found.missing == {"one": ("stems",), "new": tuple(TABLES)}
    assert found.tables_of("one") == {"stems"} and found.songs == {"one", "new"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "0 bytes"),
        (b"garbage", "cannot be read"),
        ("stems/two.parquet", "the file of another song, two"),
        ("songs/one.parquet", "its columns are song_id, song_hash"),
    ],
    ids=["empty", "garbage", "another song", "another table"],
)
def test_a_changed_file_is_damaged_if_its_footer_does_not_fit(
    store: ObjectStore, content: bytes | str, fault: str
) -> None:
    replace(store, "stems/one.parquet", store.read(content) if isinstance(content, str) else content)
    found = lacking(store)
    assert found.songs == {"one"} and fault in found.damaged["stems"]["one"]


def test_damage_behind_a_footer_is_known_once_the_catalogs_have_read_the_file(store: ObjectStore) -> None:
    data = bytearray(store.read("songs/one.parquet"))
    data[4:60] = bytes(56)
    replace(store, "songs/one.parquet", bytes(data))
    assert lacking(store).songs == set()
    assert damage_told_of(store, ["one", "two"]) == {}
    assert not are_current(store, CATALOGS, list_all_files(store, SOURCES))
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)
    assert lacking(store).songs == {"one"}
    assert damage_told_of(store, ["one", "two"]) == {"one": {"songs"}}
    analyze(store, "one")
    assert lacking(store).songs == set(), "the file has been replaced"


def test_song_errors_of_version_1_with_a_row_per_table_tells_of_damage_too(store: ObjectStore) -> None:
    data = bytearray(store.read("songs/one.parquet"))
    data[4:60] = bytes(56)
    replace(store, "songs/one.parquet", bytes(data))
    replace(store, "instrument_tags/one.parquet", b"")
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)
    now = lacking(store).damaged
    assert set(now) == {"songs", "instrument_tags"}
    with store.open("song_errors/song_errors.parquet") as file:
        rows = pq.read_table(file)
    of_version_1 = (
        pl.DataFrame(rows)
        .drop("table", "message")
        .explode("tables", "messages")
        .rename({"tables": "table", "messages": "message"})
        .to_arrow()
    )
    with store.create("song_errors/song_errors.parquet") as pending:
        older = pa.Table.from_batches(of_version_1.to_batches()).replace_schema_metadata(rows.schema.metadata)
        pq.write_table(older, pending.file)
    assert lacking(store).damaged == now
    assert damage_told_of(store, ["one", "two"]) == {"one": {"songs", "instrument_tags"}}


@pytest.mark.parametrize("lost", ["song_errors", "_state/song_errors"])
def test_song_errors_is_read_once_and_tells_of_nothing_without_its_state(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    replace(store, "songs/one.parquet", store.read("songs/one.parquet")[:-9])
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)
    seen: list[str] = []
    read = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, key: seen.append(key) or read(self, key))
    assert damage_told_of(store, ["one", "two"]) == {"one": {"songs"}}
    assert seen.count("song_errors/song_errors.parquet") == 1
    for found in list(store.list(lost)):
        store.delete(found.key)
    assert not any(damage_told_of(store, ["one", "two"]).values())
    assert set(lacking(store).damaged) == {"songs"}, "by its footer"


@pytest.mark.parametrize("catalog", [each.table.name for each in CATALOGS])
def test_a_catalog_that_is_damaged_inside_is_not_current_and_made_again(
    store: ObjectStore, catalog: str
) -> None:
    replace(store, "instrument_tags/two.parquet", b"")  # so that song_errors has a row
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)
    files = list_all_files(store, SOURCES)
    assert are_current(store, CATALOGS, files)
    key = f"{catalog}/{catalog}.parquet"
    whole = store.read(key)
    data = bytearray(whole)
    data[4:40] = bytes(36)
    if catalog == "instrument_catalog":  # it has no rows here, so all of it is footer
        data = data[:-1]
    replace(store, key, bytes(data))
    assert not are_current(store, CATALOGS, files)
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)
    assert are_current(store, CATALOGS, files)
