"""Tables as polars frames: empty ones, lazy ones over files, and the rows of one song."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import polars as pl

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import ArrowTable, Table
from bandscope_dagster.storage.tables.song_tables import read_table


def empty_frame(table: Table) -> pl.DataFrame:
    """The table's columns without rows."""
    return _as_frame(table.schema.empty_table())


def scan_files(
    table: Table, files: Sequence[str] | io.BytesIO, access: Mapping[str, Any] | None = None
) -> pl.LazyFrame:
    """The rows of Parquet files (URIs, or the bytes of one file), with the columns of the table's current version.

    ``access`` is ``ObjectStore.polars_access()``.
    """
    empty = empty_frame(table)
    if not files:
        return empty.lazy()
    return pl.scan_parquet(
        files if isinstance(files, io.BytesIO) else list(files),
        glob=False,  # the store's path may contain brackets
        schema=empty.schema,
        missing_columns="insert",  # files written before a column was added
        extra_columns="ignore",  # files of a newer version
        **(access or {}),
    )


def read_frame(
    store: ObjectStore, table: Table, song_id: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """The song's rows, with all columns or only ``columns``. No rows if the song has no file.

    Raises:
        ValueError: the file cannot be read.
    """
    names = list(table.names if columns is None else columns)
    found = read_table(store, table, song_id, names)
    return _as_frame(table.schema.empty_table().select(names) if found is None else found)


def _as_frame(rows: ArrowTable) -> pl.DataFrame:
    return cast(pl.DataFrame, pl.from_arrow(rows))
