"""The tables, each defined once: what a row is, its columns in the files' order, and where its files lie.

All else is made from it: the Arrow schema of every file, what the Dagster UI shows, and ``docs/tables.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from bandscope_dagster.storage.tables.catalog_columns import INSTRUMENT_COLUMNS, SONG_SUMMARY_COLUMNS
from bandscope_dagster.storage.tables.columns import (
    BLOCK,
    BLOCK_COLUMNS,
    ERROR_COLUMNS,
    SONG_COLUMNS,
    SONG_ID_COLUMN,
    TAG_COLUMNS,
    Column,
)

# pyarrow has no stubs; these names say what a value is.
ArrowSchema: TypeAlias = Any  # pyarrow.Schema
ArrowTable: TypeAlias = Any  # pyarrow.Table

SONG_ID = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Table:
    """One table. Changes only append columns, so that files of all ages can be read together.

    With every change the version is raised; ``docs/tables.lock.json`` holds the columns of each.
    """

    name: str
    version: int  # from 1; stands in the metadata of every file
    description: str
    nulls: str  # what a null means, beyond what the columns say
    columns: tuple[Column, ...]
    kind: Literal["audio", "tags", "other"] = (
        "other"  # rows are blocks of sound, instruments, or anything else
    )
    model: Literal["separator", "tagger"] | None = None  # the kind of model that computes the rows

    @property
    def schema(self) -> ArrowSchema:
        """The Arrow schema; each field's metadata holds ``description`` and, where there is one, ``unit``."""
        return pa.schema([column.field for column in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)


def table_key(table: Table, song_id: str) -> str:
    """The key of the song's file in a per-song table: ``<table>/<song_id>.parquet``."""
    if not SONG_ID.fullmatch(song_id):
        raise ValueError(f"{song_id!r} is no song id: it must match {SONG_ID.pattern}")
    return f"{table.name}/{song_id}.parquet"


def catalog_key(table: Table) -> str:
    """The key of the one file of a table over all songs."""
    return f"{table.name}/{table.name}.parquet"


_ONLY_AN_ERROR = "A song without a result has one row, in which only `song_id` and `error` are filled."
_WINDOWS = (
    "Silent windows have no rows. A window where a language model named nothing, or whose answer cannot be read "
    "(`error`), has one row without an instrument."
)
_TAG_NULLS = (
    "Without an instrument there is neither `family`, `label`, `score` nor `mapped`. A score is null where the tagger "
    "gives none (Qwen-Omni), a layer where it names none (musicnn, AST). A song that was rejected has one row, in "
    "which only `song_id` and `error` are filled."
)

SONGS = Table(
    "songs",
    1,
    "One row per song: what the upload is, and whether it can be used. Every upload is read once and decoded to "
    "its end before any model sees it; a rejected one has its reason in `error`.",
    "Where `error` is filled, so are only the columns that were known before: those of the listing, and those of the "
    "format where the header could be read. `title` to `genre` are null where the file has no such tag.",
    SONG_COLUMNS,
)
DECODED_WAVEFORMS = Table(
    "decoded_waveforms",
    1,
    "One row per 10 s block of the song, decoded to 44.1 kHz stereo and stored as FLAC. A song that was rejected "
    "has one row, of which only `error` is filled; so have the tables below.",
    _ONLY_AN_ERROR,
    (SONG_ID_COLUMN, BLOCK, *BLOCK_COLUMNS),
    kind="audio",
)
STEMS = Table(
    "stems",
    1,
    "One row per 10 s block and stem, stored as FLAC: the columns of decoded_waveforms, and after the block which "
    "stem it is and which model made it. The stems add up to the mixture.",
    _ONLY_AN_ERROR,
    (
        SONG_ID_COLUMN,
        BLOCK,
        Column("stem", pa.string(), "Name of the stem", "vocals"),
        Column("model", pa.string(), "The separator", "htdemucs"),
        *BLOCK_COLUMNS,
    ),
    kind="audio",
    model="separator",
)
INSTRUMENT_TAGS = Table(
    "instrument_tags",
    1,
    f"One row per window of the mixture and instrument that the model heard there, with its score. {_WINDOWS}",
    _TAG_NULLS,
    TAG_COLUMNS,
    kind="tags",
    model="tagger",
)
STEM_INSTRUMENT_TAGS = Table(
    "stem_instrument_tags",
    1,
    f"One row per window of a stem and instrument that the model heard there, with its score. {_WINDOWS}",
    _TAG_NULLS,
    TAG_COLUMNS,
    kind="tags",
    model="tagger",
)
SONG_CATALOG = Table(
    "song_catalog",
    1,
    "One row per song: what it is, what it holds, and how far it got.",
    "The columns of `songs` are null as they are there; those of an analysis that has not been made, or that failed, "
    "are null too: `status` and `missing_tables` tell which.",
    (*SONG_COLUMNS, *SONG_SUMMARY_COLUMNS),
)
INSTRUMENT_CATALOG = Table(
    "instrument_catalog",
    1,
    "One row per song, source and instrument, sorted by instrument and song so that readers skip the rest.",
    "An instrument that is named and never present has 0 windows and 0 seconds, and neither `first_s` nor `last_s`. A "
    "label that the vocabulary does not know has no family.",
    INSTRUMENT_COLUMNS,
)
_ERROR_NULLS = "`reason` is null where the error has no code, `since` where the file that holds it is gone."
SONG_FAILURES = Table(
    "song_failures",
    1,
    "One row per song and table that the last run could not make: storage, memory, a bug. A song that has been made "
    "has none.",
    _ERROR_NULLS,
    ERROR_COLUMNS,
)
SONG_ERRORS = Table(
    "song_errors",
    1,
    "One row per song and table without a result, or with errors in some of its windows: what the tables hold as "
    "errors, and song_failures.",
    _ERROR_NULLS,
    ERROR_COLUMNS,
)

ANALYSIS_TABLES = (DECODED_WAVEFORMS, STEMS, INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS)
SONG_TABLES = (SONGS, *ANALYSIS_TABLES)  # one file per song
CATALOG_TABLES = (SONG_CATALOG, INSTRUMENT_CATALOG, SONG_ERRORS)  # one file for all songs
TABLES = {table.name: table for table in (*SONG_TABLES, SONG_FAILURES, *CATALOG_TABLES)}
