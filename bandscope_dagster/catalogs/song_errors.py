"""``song_errors``: every error that a per-song table holds, and what the last run could not make."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import polars as pl

from bandscope_dagster.catalogs.refresh import Catalog
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import SONG_ERRORS, SONG_FAILURES, SONG_TABLES, SONGS, TABLES
from bandscope_dagster.storage.tables.song_files import FOOTERS_AT_ONCE, SongFiles
from bandscope_dagster.storage.tables.sorted_table import Layout

UPSTREAM = "upstream: "  # starts the errors that a table has because ``songs`` has them


def song_errors(code_version: str) -> Catalog:
    """``song_errors``, sorted by song and, within it, in the order of the pipeline."""
    return Catalog(
        Layout(SONG_ERRORS, order=("song_id",), row_group_rows=16_384),
        sources=(*SONG_TABLES, SONG_FAILURES),
        settings={"code_version": code_version},
        rows=_rows,
    )


def first_error(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Per song: the error, and of how many windows it is; null where the song has nothing in the table."""
    of_windows = "start_s" in rows.collect_schema()
    windows = pl.col("start_s").is_not_null().sum() if of_windows else pl.lit(0)
    return (
        rows.filter(pl.col("error").is_not_null())
        .group_by("song_id")
        .agg(
            pl.col("error").first(),
            pl.when(windows > 0).then(windows).otherwise(None).cast(pl.Int64).alias("windows"),
        )
    )


def _rows(files: SongFiles) -> pl.DataFrame:
    tables = pl.DataFrame({"table": [table.name for table in SONG_TABLES]}).with_row_index("order")
    # A failure is of the last run, and what the table holds of an earlier one.
    return (
        pl.concat([files.read(SONG_FAILURES, lambda rows: rows), _of_tables(files)])
        .unique(["song_id", "table"], keep="first", maintain_order=True)
        .join(tables, on="table", how="left")
        .sort("song_id", "order")
        .drop("order")
    )


def _of_tables(files: SongFiles) -> pl.DataFrame:
    errors = pl.concat(
        files.read(table, first_error).with_columns(pl.lit(table.name).alias("table"))
        for table in SONG_TABLES
    )

    def since(row: tuple[str, str]) -> datetime | None:
        lineage = read_lineage(files.store, TABLES[row[0]], row[1])
        return lineage.created_at if lineage else None

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        times = list(pool.map(since, errors.select("table", "song_id").iter_rows()))
    own = pl.col("error").str.strip_prefix(UPSTREAM)
    parts = own.str.splitn(": ", 2).struct
    has_reason = own.str.contains(": ", literal=True)
    return errors.select(
        "song_id",
        "table",
        pl.when(pl.col("error").str.starts_with(UPSTREAM))
        .then(pl.lit(SONGS.name))
        .otherwise(pl.col("table"))
        .alias("stage"),
        pl.when(has_reason).then(parts.field("field_0")).alias("reason"),
        pl.concat_str(
            pl.format("{} windows without tags, the first: ", "windows").fill_null(""),
            pl.when(has_reason).then(parts.field("field_1")).otherwise(own),
        ).alias("message"),
        pl.Series("since", times, dtype=pl.Datetime("us", "UTC")),
    )
