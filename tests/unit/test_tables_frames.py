"""Tables as polars frames: the columns of the current version, also for empty tables and older files."""

import io
from pathlib import Path

import polars as pl
import pytest
from song_rows import lineage, song_row

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.tables.frames import empty_frame, read_frame, scan_files
from bandscope_dagster.storage.tables.schemas import SONGS, TABLES, Table
from bandscope_dagster.storage.tables.song_tables import write_table


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_an_empty_table_has_its_columns_and_no_rows(table: Table):
    for frame in (empty_frame(table), scan_files(table, []).collect()):
        assert frame.columns == list(table.names) and frame.height == 0


def test_a_song_without_a_file_has_no_rows(tmp_path: Path):
    store = open_store(str(tmp_path))
    assert read_frame(store, SONGS, "song").equals(empty_frame(SONGS))
    assert read_frame(store, SONGS, "song", ["title", "error"]).columns == ["title", "error"]


def test_a_file_is_read_from_the_store_its_path_or_its_bytes(tmp_path: Path):
    store = open_store(str(tmp_path / "[brackets]"))
    written = write_table(store, SONGS, [song_row("song")], lineage("song"))
    found = read_frame(store, SONGS, "song")
    assert found["song_id"].to_list() == ["song"]
    assert scan_files(SONGS, [written.uri]).collect().equals(found)
    assert scan_files(SONGS, io.BytesIO(store.read(written.key))).collect().equals(found)


def test_columns_that_a_file_lacks_are_null_and_unknown_ones_are_ignored(tmp_path: Path):
    other = empty_frame(SONGS).drop("genre")
    row = pl.DataFrame({"song_id": ["song"]}).with_columns(mood=pl.lit("calm"))
    pl.concat([other, row], how="diagonal").write_parquet(tmp_path / "song.parquet")
    found = scan_files(SONGS, [str(tmp_path / "song.parquet")]).collect()
    assert found.columns == list(SONGS.names)
    assert found["genre"].to_list() == [None]
