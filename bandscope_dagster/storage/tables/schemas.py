"""The definition of every table: its rows, its columns in order, and the keys of its files.

The Arrow schema of every file, the descriptions in the Dagster UI and ``docs/tables.md`` come from here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from bandscope_dagster.storage.tables.catalog_columns import (
    INSTRUMENT_COLUMNS,
    NAME_COLUMN,
    SONG_ERROR_COLUMNS,
    SONG_SUMMARY_COLUMNS,
    UPLOAD_COLUMNS,
)
from bandscope_dagster.storage.tables.columns import (
    BLOCK_COLUMN,
    BLOCK_COLUMNS,
    ERROR_COLUMNS,
    SONG_COLUMNS,
    SONG_ID_COLUMN,
    SONG_QUALITY_COLUMNS,
    STEM_COLUMNS,
    TAG_COLUMNS,
    Column,
)

# pyarrow has no type stubs; these names document the types.
ArrowSchema: TypeAlias = Any  # pyarrow.Schema
ArrowTable: TypeAlias = Any  # pyarrow.Table

SONG_ID = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Table:
    """One table. Changes only append columns, so that files of all versions can be read together.

    Every change of the columns raises the version; ``docs/tables.lock.json`` has the columns of each version.
    """

    name: str
    version: int  # from 1; in the metadata of every file
    description: str
    nulls: str  # meaning of nulls, in addition to the descriptions of the columns
    columns: tuple[Column, ...]
    kind: Literal["audio", "tags", "other"] = "other"  # of the rows: audio blocks, instrument tags, or others
    model: Literal["separator", "tagger"] | None = None  # the kind of model that computes the rows

    @property
    def schema(self) -> ArrowSchema:
        """The Arrow schema; the metadata of each field has its ``description`` and, if there is one, its ``unit``."""
        return pa.schema([column.field for column in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)


def leaves(schema: ArrowSchema) -> Iterator[tuple[str, Any]]:
    """The columns in Parquet, as paths with types: each field of a struct is a column of its own."""

    def below(path: str, kind: Any) -> Iterator[tuple[str, Any]]:
        if pa.types.is_struct(kind):
            for child in kind:
                yield from below(f"{path}.{child.name}", child.type)
        elif pa.types.is_list(kind):
            yield from below(f"{path}.list.element", kind.value_type)
        else:
            yield path, kind

    for entry in schema:
        yield from below(entry.name, entry.type)


def table_key(table: Table, song_id: str) -> str:
    """The key of the song's file in a per-song table: ``<table>/<song_id>.parquet``."""
    if not SONG_ID.fullmatch(song_id):
        raise ValueError(f"{song_id!r} is not a song id; a song id matches {SONG_ID.pattern}")
    return f"{table.name}/{song_id}.parquet"


def catalog_key(table: Table) -> str:
    """The key of a catalog's only file: ``<table>/<table>.parquet``."""
    return f"{table.name}/{table.name}.parquet"


_ONLY_AN_ERROR = "A song without a result has one row, in which only `song_id` and `error` are set."
_WINDOWS = (
    "Silent windows have no rows. A window has one row without an instrument if a language model named none, or if "
    "its answer cannot be read (`error`)."
)
_TAG_NULLS = (
    "In a row without an instrument, `family`, `label`, `score` and `mapped` are null too. `score` is null if the "
    "tagger has no scores (Qwen-Omni), `layer` if it names no layers (all others). A rejected song has one row, in "
    "which only `song_id` and `error` are set."
)

SONGS = Table(
    "songs",
    2,
    "One row per song: the properties of its upload. Every upload is decoded to its end before a model runs; a "
    "rejected one has the reason in `error`.",
    "If `error` is set, only the columns known before the error are set: those of the listing, and those of the format "
    "if the header could be read, and `duration_s`, `bad_packets` and `lost_s` of what was decoded. "
    "`title`, `artist`, `album` and `genre` are null if the file has no such tag.",
    (*SONG_COLUMNS, *SONG_QUALITY_COLUMNS),
)
DECODED_WAVEFORMS = Table(
    "decoded_waveforms",
    1,
    "One row per 10 s block of the song, decoded to 44.1 kHz stereo and stored as FLAC. A rejected song has one row "
    "with its `error`.",
    _ONLY_AN_ERROR,
    (SONG_ID_COLUMN, BLOCK_COLUMN, *BLOCK_COLUMNS),
    kind="audio",
)
STEMS = Table(
    "stems",
    1,
    "One row per 10 s block and stem, stored as FLAC: the columns of `decoded_waveforms`, and the stem and its "
    "separator. All stems of a separator add up to the mixture.",
    _ONLY_AN_ERROR,
    (SONG_ID_COLUMN, BLOCK_COLUMN, *STEM_COLUMNS, *BLOCK_COLUMNS),
    kind="audio",
    model="separator",
)
INSTRUMENT_TAGS = Table(
    "instrument_tags",
    2,
    f"One row per window of the mixture and instrument in it, with its score. {_WINDOWS}",
    _TAG_NULLS,
    TAG_COLUMNS,
    kind="tags",
    model="tagger",
)
STEM_INSTRUMENT_TAGS = Table(
    "stem_instrument_tags",
    2,
    f"One row per window of a stem and instrument in it, with its score. {_WINDOWS}",
    _TAG_NULLS,
    TAG_COLUMNS,
    kind="tags",
    model="tagger",
)
SONG_CATALOG = Table(
    "song_catalog",
    3,
    "One row per song: its properties, its stems and instruments, and its status.",
    "The columns of `songs` are null as in `songs`. The columns of an analysis are null if it failed or was not done "
    "yet; see `status` and `missing_tables`.",
    (*SONG_COLUMNS, *SONG_SUMMARY_COLUMNS, *SONG_QUALITY_COLUMNS, *UPLOAD_COLUMNS, NAME_COLUMN),
)
INSTRUMENT_CATALOG = Table(
    "instrument_catalog",
    2,
    "One row per song, source and instrument, sorted by instrument and song, so that a search for an instrument reads "
    "few row groups.",
    "An instrument that is named but never present has 0 windows and 0 seconds; its `first_s` and `last_s` are null. "
    "`family` is null for a label that the vocabulary does not have.",
    INSTRUMENT_COLUMNS,
)
_ERROR_NULLS = "`reason` is null if the error has no code, `since` if the file with the error is gone."
SONG_FAILURES = Table(
    "song_failures",
    1,
    "One row per song and table that the last run could not compute, because of the storage, memory or a bug. A "
    "song without failures has no rows.",
    _ERROR_NULLS,
    ERROR_COLUMNS,
)
SONG_ERRORS = Table(
    "song_errors",
    2,
    "One row per song and reason why tables have no result, or have errors in some windows. The reasons are the errors "
    "in the per-song tables, files that cannot be read, and the rows of `song_failures`. A rejected upload is one row, "
    "and its `tables` are all that repeat the error: the number of rows with a reason is the number of songs.",
    _ERROR_NULLS,
    SONG_ERROR_COLUMNS,
)

ANALYSIS_TABLES = (DECODED_WAVEFORMS, STEMS, INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS)
TAG_TABLES = (INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS)
SONG_TABLES = (SONGS, *ANALYSIS_TABLES)  # one file per song
CATALOG_TABLES = (SONG_CATALOG, INSTRUMENT_CATALOG, SONG_ERRORS)  # one file for all songs
TABLES = {table.name: table for table in (*SONG_TABLES, SONG_FAILURES, *CATALOG_TABLES)}
