"""Rows are checked before they are written, and are read back unchanged."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from song_rows import NOW, lineage, song_row, tag_row

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, SONGS, STEMS
from bandscope_dagster.storage.tables.song_tables import (
    ROWS_AT_ONCE,
    arrow_table,
    python_rows,
    read_table,
    write_error_row,
    write_table,
)

SONG = "song-0123456789ab"


def test_rows_come_back_as_they_were_in_their_order(store: ObjectStore):
    rows = [tag_row(SONG, name, 0.5, 3.0) for name in ("violin", "cello", "piano")]
    written = write_table(store, INSTRUMENT_TAGS, rows, lineage(SONG))
    assert (written.key, written.rows) == (f"instrument_tags/{SONG}.parquet", 3)
    assert written.uri == store.uri(written.key)
    assert written.bytes == store.head(written.key).size

    table = read_table(store, INSTRUMENT_TAGS, SONG)
    assert table.to_pylist() == rows
    assert table.schema.field("start_s").metadata[b"unit"] == b"s"
    assert read_table(store, INSTRUMENT_TAGS, SONG, columns=["score"]).column_names == ["score"]


def test_an_arrow_table_is_written_as_it_is(store: ObjectStore):
    table = pa.Table.from_pylist([song_row(SONG)], schema=SONGS.schema)
    write_table(store, SONGS, table, lineage(SONG))
    assert read_table(store, SONGS, SONG).to_pylist() == [song_row(SONG)]


def test_a_song_without_instruments_has_a_table_without_rows(store: ObjectStore):
    assert write_table(store, INSTRUMENT_TAGS, [], lineage(SONG)).rows == 0
    assert read_table(store, INSTRUMENT_TAGS, SONG).num_rows == 0


def test_a_song_without_a_file_has_no_table(store: ObjectStore):
    assert read_table(store, SONGS, SONG) is None


def test_an_error_is_one_row_that_is_otherwise_empty(store: ObjectStore):
    write_error_row(store, STEMS, SONG, "upstream: empty: 0 bytes", lineage(SONG))
    (row,) = read_table(store, STEMS, SONG).to_pylist()
    assert {name: value for name, value in row.items() if value is not None} == {
        "song_id": SONG,
        "error": "upstream: empty: 0 bytes",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_rate": "44100 Hz"}, "songs.sample_rate must be int32"),
        ({"sample_rate": 2**40}, "songs.sample_rate must be int32"),
        ({"uploaded_at": "today"}, "songs.uploaded_at must be timestamp"),
        ({"bpm": 120}, r"unknown columns ['bpm']"),
        ({"song_id": None}, "songs.song_id must not be null, but is null in 1 rows"),
        ({"song_id": "another"}, r"cannot have rows of ['another']"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_column(store: ObjectStore, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write_table(store, SONGS, [song_row(SONG) | change], lineage(SONG))
    assert read_table(store, SONGS, SONG) is None


def test_a_row_that_lacks_a_column_is_refused(store: ObjectStore):
    row = song_row(SONG)
    del row["title"]
    with pytest.raises(ValueError, match=r"row 0: missing columns \['title'\]"):
        write_table(store, SONGS, [row], lineage(SONG))


def test_an_arrow_table_of_another_shape_is_refused_by_column(store: ObjectStore):
    good = pa.Table.from_pylist([song_row(SONG)], schema=SONGS.schema)
    with pytest.raises(ValueError, match="songs must have the columns"):
        write_table(store, SONGS, good.drop_columns(["title"]), lineage(SONG))
    wide = good.set_column(9, "sample_rate", pa.array([44100], pa.int64()))
    with pytest.raises(ValueError, match=r"songs\.sample_rate must be int32, not int64"):
        write_table(store, SONGS, wide, lineage(SONG))


def test_a_torn_file_is_an_error_that_names_it_and_the_fix(store: ObjectStore):
    written = write_table(store, SONGS, [song_row(SONG)], lineage(SONG))
    data = store.read(written.key)
    with store.create(written.key) as pending:
        pending.write(data[:-20])
    with pytest.raises(
        ValueError, match=rf"songs/{SONG}.parquet cannot be read .*`bandscope run` makes it again"
    ):
        read_table(store, SONGS, SONG)


def test_equal_rows_make_equal_files_but_for_the_lineage(tmp_path):
    rows = [tag_row(SONG, name, 0.25, 3.0) for name in ("violin", "cello")] * 500
    files = []
    for number, changes in enumerate([{}, {}, {"run_id": "another", "created_at": NOW.replace(year=2027)}]):
        store = open_store(str(tmp_path / str(number)))
        files.append(store.read(write_table(store, INSTRUMENT_TAGS, rows, lineage(SONG, **changes)).key))
    assert files[0] == files[1]
    assert files[0] != files[2]
    assert data_pages(files[0]) == data_pages(files[2])


def data_pages(file: bytes) -> bytes:
    """The bytes before the footer."""
    return file[: -8 - pq.read_metadata(pa.BufferReader(file)).serialized_size]


def test_rows_are_taken_in_parts_and_the_one_that_is_wrong_is_named() -> None:
    count = ROWS_AT_ONCE + 3
    names = [f"instrument {number}" for number in range(count)]
    found = arrow_table(INSTRUMENT_TAGS, (tag_row("song", name, 0.5, 3.0) for name in names))
    assert found.column("instrument").num_chunks == 1
    assert [row["instrument"] for row in python_rows(found, ["instrument"])] == names
    wrong = (tag_row("song", name, 0.5, 3.0) if name != names[-1] else {} for name in names)
    with pytest.raises(ValueError, match=f"row {count - 1}"):
        arrow_table(INSTRUMENT_TAGS, wrong)
