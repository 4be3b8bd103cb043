"""Songs in a store as the pipeline writes them, and their catalogs, for the tests of the catalogs."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
from song_rows import block_rows, lineage, song_row, tag_row

from bandscope_dagster.catalogs.instrument_catalog import instrument_catalog
from bandscope_dagster.catalogs.refresh import Catalog, refresh
from bandscope_dagster.catalogs.song_catalog import song_catalog
from bandscope_dagster.catalogs.song_errors import song_errors
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    DECODED_WAVEFORMS,
    INSTRUMENT_TAGS,
    SONG_TABLES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    Table,
    catalog_key,
    table_key,
)
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from

PRESENT_FROM = present_from(0.2, AUDIBLE_DB)
SONG_CATALOG, INSTRUMENT_CATALOG, SONG_ERRORS = CATALOGS = (
    song_catalog(PRESENT_FROM, "1"),
    instrument_catalog(PRESENT_FROM, "1"),
    song_errors("1"),
)

QUALITY = {
    "residual_db": -41.5,
    "stems": [
        {
            "stem": "vocals",
            "share": 1.0,
            "peak": 0.5,
            "rms_dbfs": -20.0,
            "loudness_lufs": -18.5,
            "silent": False,
        },
        {"stem": "drums", "share": 0.0, "peak": 0.0, "rms_dbfs": None, "loudness_lufs": None, "silent": True},
    ],
}


def analyze(store: ObjectStore, song: str, tags=(), stem_tags=(), quality=None) -> None:
    """Write all tables of an analyzed song. Songs of early versions have no ``quality``."""
    write_table(store, SONGS, [song_row(song)], lineage(song))
    for table, names in ((DECODED_WAVEFORMS, ("mixture",)), (STEMS, ("vocals", "accompaniment"))):
        with AudioTableWriter(store, table, lineage(song)) as writer:
            for block in range(2):
                rows = block_rows(song, block, names, seconds=0.1)
                writer.add([{name: row[name] for name in table.names} for row in rows])
            writer.commit({QUALITY_NOTE: json.dumps(quality)} if quality and table is STEMS else {})
    write_table(store, INSTRUMENT_TAGS, list(tags), lineage(song))
    write_table(store, STEM_INSTRUMENT_TAGS, list(stem_tags), lineage(song))


def tags_with_lost_windows(song: str) -> list[dict[str, Any]]:
    """Rows of four windows: a harp, two windows without tags because of an error, and an empty answer."""
    lost = {"label": None, "family": None, "error": "unparseable: no list", "answer": "I hear music."}
    return [
        tag_row(song, "harp", None, 0.0),
        *(tag_row(song, None, None, start, **lost) for start in (3.0, 6.0)),
        tag_row(song, None, None, 9.0, label=None, family=None, answer="[]"),
    ]


def reject(store: ObjectStore, song: str, error: str) -> None:
    """Write all tables of a rejected song."""
    write_table(store, SONGS, [song_row(song, error=error)], lineage(song))
    for table in ANALYSIS_TABLES:
        write_error_row(store, table, song, f"upstream: {error}", lineage(song))


def remove(store: ObjectStore, song: str) -> None:
    """Delete all files of the song."""
    for table in SONG_TABLES:
        store.delete(table_key(table, song))


def rows_of(store: ObjectStore, table: Table) -> list[dict[str, Any]]:
    """The rows of the stored catalog."""
    with store.open(catalog_key(table)) as file:
        return pq.read_table(file).to_pylist()


def refreshed(store: ObjectStore, catalog: Catalog) -> list[dict[str, Any]]:
    """The catalog's rows after a refresh of it."""
    (done,) = refresh(store, [catalog])
    rows = rows_of(store, catalog.table)
    assert len(rows) == done.file.rows
    return rows


def with_a_flipped_bit(data: bytes) -> bytes:
    """A Parquet file with one other bit, in the last page of its first column; the footer fits as before."""
    column = pq.read_metadata(io.BytesIO(data)).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    damaged = bytearray(data)
    damaged[start + column.total_compressed_size - 1] ^= 1
    return bytes(damaged)
