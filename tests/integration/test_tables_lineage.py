"""The lineage of a file is in its footer; only the footer is read."""

import av
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from song_rows import block_rows, lineage, song_row

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import (
    PACKAGES,
    QUALITY_NOTE,
    Lineage,
    Maker,
    lineage_and_notes,
    read_footer,
    read_lineage,
    read_note,
)
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, SONG_TABLES, SONGS, STEMS, Table
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table

SONG = "song-0123456789ab"


def test_lineage_is_read_back_as_it_was_written(store: ObjectStore):
    write_table(store, SONGS, [song_row(SONG)], lineage(SONG))
    assert read_lineage(store, SONGS, SONG) == lineage(SONG)


def test_a_song_without_a_file_has_no_lineage(store: ObjectStore):
    assert read_lineage(store, SONGS, SONG) is None


def test_any_reader_finds_the_lineage_under_plain_names(tmp_path):
    from bandscope_dagster.storage.objects.open_store import open_store

    store = open_store(str(tmp_path))
    written = write_table(store, SONGS, [song_row(SONG)], lineage(SONG))
    metadata = pq.read_metadata(written.uri).metadata
    assert metadata[b"bandscope.song_id"] == SONG.encode()
    assert {name for name in metadata if name.startswith(b"bandscope.")} == {
        f"bandscope.{name}".encode() for name in (*Lineage.__slots__, "table_version", "software")
    }


@pytest.mark.parametrize("table", [*SONG_TABLES, SONG_FAILURES], ids=lambda table: table.name)
def test_the_files_of_every_table_have_the_same_entries(table: Table, store: ObjectStore):
    if "audio" in table.names:
        with AudioTableWriter(store, table, lineage(SONG)) as writer:
            writer.commit()
    else:
        write_table(store, table, [], lineage(SONG))
    footer = read_footer(store, table, SONG)
    assert lineage_and_notes(footer, store, table, SONG) == (lineage(SONG), {})
    maker = Maker.of(footer)
    assert maker.table_version == table.version
    assert maker.software.keys() == set(PACKAGES)
    assert maker.software["av"] == av.__version__


def test_a_file_of_before_versions_has_none(store: ObjectStore):
    metadata = lineage(SONG).to_metadata()
    with store.create(f"songs/{SONG}.parquet") as pending:
        rows = pa.Table.from_pylist([song_row(SONG)], schema=SONGS.schema.with_metadata(metadata))
        pq.write_table(rows, pending.file)
    assert Maker.of(read_footer(store, SONGS, SONG)) == Maker(None, {})
    assert read_lineage(store, SONGS, SONG) == lineage(SONG)


def test_a_note_is_read_from_the_footer_where_there_is_one(store: ObjectStore):
    assert read_note(store, STEMS, SONG, QUALITY_NOTE) is None  # no file
    with AudioTableWriter(store, STEMS, lineage(SONG)) as writer:
        writer.add(block_rows(SONG, 0, ("vocals",)))
        writer.commit({QUALITY_NOTE: "größer", "other": "2"})
    assert read_note(store, STEMS, SONG, QUALITY_NOTE) == "größer"
    assert read_note(store, STEMS, SONG, "other") == "2"
    assert read_note(store, STEMS, SONG, "unheard of") is None


def test_a_file_of_before_there_were_notes_and_a_row_of_a_rejection_have_none(store: ObjectStore):
    with AudioTableWriter(store, STEMS, lineage(SONG)) as writer:
        writer.add(block_rows(SONG, 0, ("vocals",)))
        writer.commit()
    assert read_note(store, STEMS, SONG, QUALITY_NOTE) is None
    write_error_row(store, STEMS, SONG, "upstream: empty: 0 bytes", lineage(SONG))
    assert read_note(store, STEMS, SONG, QUALITY_NOTE) is None


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
    with pytest.raises(
        ValueError, match=rf"songs/{SONG}.parquet (cannot be read|was not written by Bandscope)"
    ):
        read_lineage(store, SONGS, SONG)


def test_a_note_of_what_is_not_parquet_is_an_error_that_names_it(store: ObjectStore):
    with store.create(f"stems/{SONG}.parquet") as pending:
        pending.write(b"PAR1 no more")
    with pytest.raises(ValueError, match=rf"stems/{SONG}.parquet cannot be read"):
        read_note(store, STEMS, SONG, QUALITY_NOTE)
