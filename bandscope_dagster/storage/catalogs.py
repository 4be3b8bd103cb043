"""The catalogs: what the per-song tables hold, compacted into one sorted file each, where analysts start.

Layout: ``<catalog>/<catalog>.parquet``, zstd, row groups of 65,536 rows, replaced as a whole. They are
rebuilt from all per-song files; of the audio tables only the numbers and the footers are read.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import cast

import polars as pl

from bandscope_dagster.errors import FAILED, UNAVAILABLE
from bandscope_dagster.storage.lineage import QUALITY_NOTE, read_lineage, read_note
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.presence import PresentFrom, instruments_of, top_instruments
from bandscope_dagster.storage.schemas import (
    ANALYSIS_TABLES,
    INSTRUMENT_CATALOG,
    INSTRUMENT_TAGS,
    SONG_CATALOG,
    SONG_ERRORS,
    SONG_TABLES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    TABLES,
    Table,
    catalog_key,
    table_key,
)
from bandscope_dagster.storage.tables import Written, write_file

SONGS_AT_ONCE = 1000  # bounds the memory of a build; every figure is of one song
FOOTERS_AT_ONCE = 16  # read in parallel, because each waits for the store and not for the CPU

UPSTREAM = "upstream: "  # starts the errors that a table has because ``songs`` has them

Query = Callable[[pl.LazyFrame], pl.LazyFrame]


def build_song_catalog(store: ObjectStore, present_from: PresentFrom) -> Written:
    """Write ``song_catalog``, sorted by song.

    A song has ``failed`` or is ``rejected`` where ``songs`` says so, or where the analysis itself rejected
    it; ``ok`` where all analysis tables have a file without error, also of a single window; else ``partial``.
    """
    songs = {table.name: _song_ids(store, table) for table in (SONGS, *ANALYSIS_TABLES)}
    absent = pl.DataFrame(
        {
            "song_id": songs[SONGS.name],
            "missing_tables": _missing_tables(songs),
        },
        schema={"song_id": pl.String, "missing_tables": pl.List(pl.String)},
    )
    errors = pl.concat(
        _per_song(store, table, songs[table.name], _first_error).rename({"error": "analysis_error"})
        for table in ANALYSIS_TABLES
    )
    # What the analysis found itself weighs more than what it was told, and a whole table more than some windows.
    errors = errors.sort(
        pl.col("analysis_error").str.starts_with(UPSTREAM), "windows", nulls_last=False, maintain_order=True
    ).unique("song_id", keep="first")
    catalog = (
        _per_song(store, SONGS, songs[SONGS.name], lambda rows: rows)
        .join(absent, on="song_id", how="left")
        .join(errors, on="song_id", how="left")
        .join(_per_song(store, STEMS, songs[STEMS.name], _energy_shares), on="song_id", how="left")
        .join(_qualities(store, songs[STEMS.name]), on="song_id", how="left")
        .join(
            _per_song(
                store,
                INSTRUMENT_TAGS,
                songs[INSTRUMENT_TAGS.name],
                lambda tags: top_instruments(instruments_of(tags, present_from)),
            ),
            on="song_id",
            how="left",
        )
        .with_columns(_status().alias("status"))
        .sort("song_id")
    )
    return _write(store, SONG_CATALOG, catalog)


def build_instrument_catalog(store: ObjectStore, present_from: PresentFrom) -> Written:
    """Write ``instrument_catalog``, sorted by instrument, song and source.

    All instruments that are named are in it; those that are never present have no seconds. Labels
    that the vocabulary does not know stand under their own word.
    """
    instruments = pl.concat(
        _per_song(store, table, _song_ids(store, table), lambda tags: instruments_of(tags, present_from))
        for table in (INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS)
    )
    return _write(store, INSTRUMENT_CATALOG, instruments.sort("instrument", "song_id", "source", "family"))


def build_song_errors(store: ObjectStore) -> Written:
    """Write ``song_errors``, sorted by song and, within it, in the order of the pipeline."""
    errors = pl.concat(
        _per_song(store, table, _song_ids(store, table), _first_error).with_columns(
            pl.lit(table.name).alias("table"), pl.lit(order).alias("order")
        )
        for order, table in enumerate(SONG_TABLES)
    ).sort("song_id", "order")

    def since(row: tuple[str, str]) -> datetime | None:
        lineage = read_lineage(store, TABLES[row[0]], row[1])
        return lineage.created_at if lineage else None

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        times = list(pool.map(since, errors.select("table", "song_id").iter_rows()))
    own = pl.col("error").str.strip_prefix(UPSTREAM)
    parts = own.str.splitn(": ", 2).struct
    has_reason = own.str.contains(": ", literal=True)
    listed = errors.with_columns(
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
    return _write(store, SONG_ERRORS, listed)


def _song_ids(store: ObjectStore, table: Table) -> list[str]:
    """The songs that have a file in a per-song table, also one without rows."""
    names = (found.key.removeprefix(f"{table.name}/") for found in store.list(table.name))
    return [name.removesuffix(".parquet") for name in names if name.endswith(".parquet") and "/" not in name]


def _missing_tables(songs: dict[str, list[str]]) -> list[list[str]]:
    having = {table.name: set(songs[table.name]) for table in ANALYSIS_TABLES}
    return [[name for name, ids in having.items() if song not in ids] for song in songs[SONGS.name]]


def _per_song(store: ObjectStore, table: Table, song_ids: list[str], query: Query) -> pl.DataFrame:
    """The results of ``query`` over the songs' files, one under the other."""
    empty = cast(pl.DataFrame, pl.from_arrow(table.schema.empty_table()))
    results = [query(empty.lazy()).collect()]
    for start in range(0, len(song_ids), SONGS_AT_ONCE):
        files = [store.uri(table_key(table, song)) for song in song_ids[start : start + SONGS_AT_ONCE]]
        rows = pl.scan_parquet(
            files,
            glob=False,  # the store's path may hold brackets
            schema=empty.schema,
            missing_columns="insert",  # files of before a column was added
            extra_columns="ignore",  # files of a later version
            storage_options=store.polars_options() or None,
        )
        results.append(query(rows).collect(engine="streaming"))
    return pl.concat(results)


def _first_error(rows: pl.LazyFrame) -> pl.LazyFrame:
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


def _status() -> pl.Expr:
    found = pl.col("error").fill_null(pl.col("analysis_error").str.strip_prefix(UPSTREAM))
    # An error that was handed on, while ``songs`` no longer has it, is out of date: analyze the song again.
    stale = pl.col("error").is_null() & pl.col("analysis_error").str.starts_with(UPSTREAM).fill_null(False)
    return (
        pl.when(stale | (pl.col("error").is_null() & pl.col("windows").is_not_null()))
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


def _qualities(store: ObjectStore, song_ids: list[str]) -> pl.DataFrame:
    """What the footers of the stems say of their quality; null for files of before they did."""
    columns = cast(pl.DataFrame, pl.from_arrow(SONG_CATALOG.schema.empty_table())).schema
    note = pl.Struct({"residual_db": columns["residual_db"], "stems": columns["stem_quality"]})

    def read(song_id: str) -> str | None:
        return read_note(store, STEMS, song_id, QUALITY_NOTE)

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        notes = list(pool.map(read, song_ids))
    quality = pl.col("note").str.json_decode(note).struct
    return pl.DataFrame(
        {"song_id": song_ids, "note": notes}, schema={"song_id": pl.String, "note": pl.String}
    ).select("song_id", quality.field("residual_db"), quality.field("stems").alias("stem_quality"))


def _write(store: ObjectStore, table: Table, rows: pl.DataFrame) -> Written:
    # polars' own strings and lists are the "large" kinds; the schema's are what every reader knows.
    data = rows.select(table.names).to_arrow().cast(table.schema)
    return write_file(store, catalog_key(table), table, data, {})
