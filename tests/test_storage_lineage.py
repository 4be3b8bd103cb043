"""A file's lineage is in its footer, and is read from there alone."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from song_rows import lineage, song_row

from bandscope_dagster.storage.lineage import Lineage, read_lineage
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.schemas import SONGS
from bandscope_dagster.storage.tables import write_table

SONG = "song-0123456789ab"


def test_lineage_is_read_back_as_it_was_written(store: ObjectStore):
    write_table(store, SONGS, [song_row(SONG)], lineage(SONG))
    assert read_lineage(store, SONGS, SONG) == lineage(SONG)


def test_a_song_without_a_file_has_no_lineage(store: ObjectStore):
    assert read_lineage(store, SONGS, SONG) is None


def test_any_reader_finds_the_lineage_under_plain_names(tmp_path):
    from bandscope_dagster.storage.objects import open_store

    store = open_store(str(tmp_path))
    written = write_table(store, SONGS, [song_row(SONG)], lineage(SONG))
    metadata = pq.read_metadata(written.uri).metadata
    assert metadata[b"bandscope.song_id"] == SONG.encode()
    assert {name for name in metadata if name.startswith(b"bandscope.")} == {
        f"bandscope.{name}".encode() for name in Lineage.__slots__
    }


def foreign(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"song_id": [SONG]}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"PAR1 no more", lambda data: data[: len(data) // 2], foreign],
    ids=["empty", "not parquet", "torn", "of another program"],
)
def test_a_file_that_bandscope_did_not_write_is_an_error_that_names_it(store: ObjectStore, damage):
    written = write_table(store, SONGS, [song_row(SONG)], lineage(SONG))
    with store.create(written.key) as pending:
        pending.write(damage(store.read(written.key)))
    with pytest.raises(ValueError, match=rf"songs/{SONG}.parquet was not written by Bandscope"):
        read_lineage(store, SONGS, SONG)
