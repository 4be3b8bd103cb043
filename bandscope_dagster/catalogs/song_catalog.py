"""``song_catalog``: what every song is, what it holds, and how far it got."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import cast

import polars as pl

from bandscope_dagster.catalogs.refresh import Catalog
from bandscope_dagster.catalogs.song_errors import UPSTREAM, first_error
from bandscope_dagster.errors import FAILED, UNAVAILABLE
from bandscope_dagster.songs.presence import (
    PresentFrom,
    all_instruments,
    as_setting,
    instruments_of,
    top_instruments,
)
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, read_note
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    INSTRUMENT_TAGS,
    SONG_CATALOG,
    SONG_FAILURES,
    SONG_TABLES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
)
from bandscope_dagster.storage.tables.song_files import FOOTERS_AT_ONCE, SongFiles
from bandscope_dagster.storage.tables.sorted_table import Layout


def song_catalog(present_from: PresentFrom, code_version: str) -> Catalog:
    """``song_catalog``, sorted by song.

    A song has ``failed`` where the last run could not make one of its tables, or ``songs`` could not read the upload;
    it is ``rejected`` where ``songs`` or the analysis says so; ``ok`` where all analysis tables have a file without
    error, also of a single window; else ``partial``.
    """
    return Catalog(
        # A row is some 300 bytes: who looks one song up fetches about 1 MB, and 100,000 songs have 25 groups.
        Layout(SONG_CATALOG, order=("song_id",), row_group_rows=4096),
        sources=(*SONG_TABLES, SONG_FAILURES),
        settings={"code_version": code_version, "present_from": as_setting(present_from)},
        rows=lambda files: _rows(files, present_from),
    )


def _rows(files: SongFiles, present_from: PresentFrom) -> pl.DataFrame:
    errors = {table.name: files.read(table, first_error) for table in ANALYSIS_TABLES}
    mixture, stems = (
        files.read(table, lambda tags: instruments_of(tags, present_from)).lazy()
        for table in (INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS)
    )
    untagged = errors[INSTRUMENT_TAGS.name].filter(pl.col("windows").is_null())["song_id"]
    tagged = pl.col(INSTRUMENT_TAGS.name).is_not_null() & ~pl.col("song_id").is_in(untagged.implode())
    missing = [pl.when(pl.col(table.name).is_null()).then(pl.lit(table.name)) for table in ANALYSIS_TABLES]
    known = files.versions.select(
        "song_id", tagged.alias("tagged"), pl.concat_list(missing).list.drop_nulls().alias("missing_tables")
    )
    per_song = (
        known,
        _analysis_errors(errors),
        files.read(SONG_FAILURES, lambda rows: rows.select("song_id").unique().with_columns(failing=True)),
        files.read(STEMS, _energy_shares),
        _qualities(files),
        top_instruments(mixture).collect(),
        all_instruments(pl.concat([mixture, stems])).collect(),
    )
    catalog = files.read(SONGS, lambda rows: rows)
    for more in per_song:
        catalog = catalog.join(more, on="song_id", how="left")
    heard = pl.when("tagged").then(pl.col("instruments").fill_null([])).otherwise(pl.col("instruments"))
    return catalog.with_columns(_status().alias("status"), heard.alias("instruments"))


def _analysis_errors(errors: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """For each song the error of the analysis that weighs most, as ``analysis_error``, and its windows."""
    # What the analysis found itself weighs more than what it was told, and a whole table more than some windows.
    return (
        pl.concat(errors.values())
        .rename({"error": "analysis_error"})
        .sort(
            pl.col("analysis_error").str.starts_with(UPSTREAM),
            "windows",
            nulls_last=False,
            maintain_order=True,
        )
        .unique("song_id", keep="first", maintain_order=True)
    )


def _status() -> pl.Expr:
    found = pl.col("error").fill_null(pl.col("analysis_error").str.strip_prefix(UPSTREAM))
    # An error that was handed on, while ``songs`` no longer has it, is out of date: analyze the song again.
    stale = pl.col("error").is_null() & pl.col("analysis_error").str.starts_with(UPSTREAM).fill_null(False)
    return (
        pl.when(pl.col("failing"))
        .then(pl.lit("failed"))
        .when(stale | (pl.col("error").is_null() & pl.col("windows").is_not_null()))
        .then(pl.lit("partial"))
        .when(found.str.split(":").list.first().is_in([UNAVAILABLE, FAILED]))
        .then(pl.lit("failed"))
        .when(found.is_not_null())
        .then(pl.lit("rejected"))
        .when(pl.col("missing_tables").list.len() > 0)
        .then(pl.lit("partial"))
        .otherwise(pl.lit("ok"))
    )


def _energy_shares(blocks: pl.LazyFrame) -> pl.LazyFrame:
    energy = 10 ** (pl.col("rms_dbfs").cast(pl.Float64) / 10) * pl.col("frames")  # of silence: 10^-inf = 0
    total = pl.col("energy").sum().over("song_id")
    share = pl.when(total > 0).then(pl.col("energy") / total).otherwise(0.0).cast(pl.Float32)
    return (
        blocks.filter(pl.col("stem").is_not_null())
        .group_by("song_id", "stem")
        .agg(energy.sum().alias("energy"), pl.col("model").first())
        .with_columns(share.alias("share"))
        .sort("song_id", "stem")
        .group_by("song_id", maintain_order=True)
        .agg(
            pl.struct("stem", "share").alias("stem_energy_share"), pl.col("model").first().alias("separator")
        )
    )


def _qualities(files: SongFiles) -> pl.DataFrame:
    """What the footers of the stems say of their quality; null for files of before they did."""
    columns = cast(pl.DataFrame, pl.from_arrow(SONG_CATALOG.schema.empty_table())).schema
    note = pl.Struct({"residual_db": columns["residual_db"], "stems": columns["stem_quality"]})
    song_ids = files.having(STEMS)

    def read(song_id: str) -> str | None:
        return read_note(files.store, STEMS, song_id, QUALITY_NOTE)

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        notes = list(pool.map(read, song_ids))
    quality = pl.col("note").str.json_decode(note).struct
    return pl.DataFrame(
        {"song_id": song_ids, "note": notes}, schema={"song_id": pl.String, "note": pl.String}
    ).select("song_id", quality.field("residual_db"), quality.field("stems").alias("stem_quality"))
