"""``song_catalog``: one row per song with its properties, stems, instruments and status."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import polars as pl

from bandscope_dagster.catalogs.catalog import Catalog
from bandscope_dagster.songs.presence import (
    PresentFrom,
    all_instruments,
    as_setting,
    instruments_of,
    top_instruments,
)
from bandscope_dagster.songs.status import SOURCES, read_evidence
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_columns import display_name
from bandscope_dagster.storage.tables.catalog_state import read_made_from
from bandscope_dagster.storage.tables.frames import empty_frame
from bandscope_dagster.storage.tables.lineage import QUALITY_NOTE, read_note
from bandscope_dagster.storage.tables.schemas import (
    INSTRUMENT_TAGS,
    SONG_CATALOG,
    SONGS,
    STEMS,
    TAG_TABLES,
)
from bandscope_dagster.storage.tables.song_files import FOOTERS_AT_ONCE, UPLOAD, SongFiles
from bandscope_dagster.storage.tables.sorted_table import Layout

_MEASURED_SHARES: Final = pl.col("stem_quality").list.eval(
    pl.struct(
        pl.element().struct.field("stem"),
        pl.element().struct.field("share").cast(pl.Float32),
    ).sort_by(pl.element().struct.field("stem"))
)
"""The shares as they were measured: where only some stems are stored, their blocks do not have the energy of all."""


def song_catalog(present_from: PresentFrom, code_version: str) -> Catalog:
    """``song_catalog``, sorted by song. Its statuses come from ``songs.status``."""
    return Catalog(
        # A row is about 300 bytes: a query for one song fetches about 1 MB, and 100,000 songs have 25 groups.
        Layout(SONG_CATALOG, order=("song_id",), row_group_rows=4096, file_rows=1024),
        sources=SOURCES,
        settings={"code_version": code_version, "present_from": as_setting(present_from)},
        rows=lambda files: _rows(files, present_from),
        marks_uploads=True,
    )


def _rows(files: SongFiles, present_from: PresentFrom) -> pl.DataFrame:
    mixture, stems = (
        files.read(table, lambda tags: instruments_of(tags, present_from)).lazy() for table in TAG_TABLES
    )
    songs = files.read(SONGS, lambda rows: rows)
    per_song = (
        songs,
        files.read(STEMS, _energy_shares),
        _qualities(files),
        top_instruments(mixture).collect(),
        all_instruments(pl.concat([mixture, stems])).collect(),
        _statuses(files, songs),  # last: it reports the files that could not be read above
    )
    catalog = files.versions.select("song_id", UPLOAD)
    for columns in per_song:
        catalog = catalog.join(columns, on="song_id", how="left")
    chosen = pl.col("residual_db").is_null() & pl.col("stem_quality").is_not_null()
    shares = pl.when(chosen).then(_MEASURED_SHARES).otherwise(pl.col("stem_energy_share"))
    heard = pl.when("tagged").then(pl.col("instruments").fill_null([])).otherwise(pl.col("instruments"))
    return catalog.with_columns(heard.alias("instruments"), shares.alias("stem_energy_share"), display_name())


def _statuses(files: SongFiles, songs: pl.DataFrame) -> pl.DataFrame:
    """Per song, its status, its missing tables, and ``tagged``: True if the mixture was tagged, even without a tag."""
    rows = [
        (
            song_id,
            evidence.status.value,
            list(evidence.missing),
            INSTRUMENT_TAGS.name not in evidence.tables_without_result,
        )
        for song_id, evidence in read_evidence(files, songs).items()
    ]
    schema = {
        "song_id": pl.String,
        "status": pl.String,
        "missing_tables": pl.List(pl.String),
        "tagged": pl.Boolean,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _energy_shares(blocks: pl.LazyFrame) -> pl.LazyFrame:
    energy = 10 ** (pl.col("rms_dbfs").cast(pl.Float64) / 10) * pl.col("frames")  # silence: 10^-inf = 0
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
    """Per song, the quality of its stems from their footer; null for files from before it was measured."""
    columns = empty_frame(SONG_CATALOG).schema
    note = pl.Struct({"residual_db": columns["residual_db"], "stems": columns["stem_quality"]})
    song_ids = files.having(STEMS)

    def read(song_id: str) -> str | None:
        try:
            return read_note(files.store, STEMS, song_id, QUALITY_NOTE)
        except ValueError:
            return None  # the song's status reports the damaged file

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        notes = list(pool.map(read, song_ids))
    quality = pl.col("note").str.json_decode(note).struct
    return pl.DataFrame(
        {"song_id": song_ids, "note": notes}, schema={"song_id": pl.String, "note": pl.String}
    ).select("song_id", quality.field("residual_db"), quality.field("stems").alias("stem_quality"))


def unchanged_rows(store: ObjectStore, files: SongFiles, columns: Sequence[str]) -> pl.DataFrame:
    """The rows of the stored ``song_catalog`` for the songs in ``files`` that are unchanged since it was written.

    ``files`` must have the versions of all tables in ``SOURCES``. If the catalog cannot be read, there are no rows.
    """
    stored = read_made_from(store, SONG_CATALOG, SOURCES, columns)
    if stored is None:
        return empty_frame(SONG_CATALOG).select(columns)
    rows, made_from = stored
    names = ["song_id", *(table.name for table in SOURCES)]
    same = files.versions.join(made_from, on=names, nulls_equal=True, how="semi")
    return rows.join(same, on="song_id", how="semi")
