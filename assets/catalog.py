"""``song_catalog``, ``instrument_catalog`` and ``song_errors``: the whole collection in few compact files."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from bandscope_dagster.pipeline.plan import CODE_VERSIONS
from bandscope_dagster.refresh import REFRESH_DAILY_S
from bandscope_dagster.retries import RETRY_POLICY
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.catalogs import (
    build_instrument_catalog,
    build_song_catalog,
    build_song_errors,
)
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.presence import PresentFrom
from bandscope_dagster.storage.schemas import (
    INSTRUMENT_CATALOG,
    SONG_CATALOG,
    SONG_ERRORS,
    SONG_TABLES,
    Table,
)
from bandscope_dagster.storage.tables import Written
from bandscope_dagster.table_metadata import column_schema
from bandscope_dagster.tagging.registry import PRESENT_FROM

PER_SONG: Final = tuple(table.name for table in SONG_TABLES)

FRESHNESS: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(seconds=REFRESH_DAILY_S, hours=1),
    fail_window=timedelta(seconds=REFRESH_DAILY_S, hours=6),
)
"""The sensor refreshes the catalogs after every batch and once a day: older ones mean that it is off or fails."""


def _present_from(settings: Settings) -> PresentFrom:
    return PRESENT_FROM if settings.present_from is None else {None: settings.present_from}


def _spec(table: Table, deps: Sequence[str]) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=table.description,
        group_name="catalog",
        kinds={"polars", "parquet"},
        owners=["team:bandscope"],
        code_version=CODE_VERSIONS[table.name],
        metadata={"dagster/column_schema": column_schema(table)},
        freshness_policy=FRESHNESS,
    )


def _result(written: Written) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": written.uri,
            "dagster/row_count": written.rows,
            "size_mb": round(written.bytes / 1e6, 3),
        }
    )


@dg.multi_asset(specs=[_spec(SONG_CATALOG, PER_SONG)], retry_policy=RETRY_POLICY)
def song_catalog(
    store: dg.ResourceParam[ObjectStore], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """Compact what is known of every song into one file."""
    return _result(build_song_catalog(store, _present_from(settings)))


@dg.multi_asset(
    specs=[_spec(INSTRUMENT_CATALOG, ["instrument_tags", "stem_instrument_tags"])], retry_policy=RETRY_POLICY
)
def instrument_catalog(
    store: dg.ResourceParam[ObjectStore], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """Aggregate the tags of every song and source into one file."""
    return _result(build_instrument_catalog(store, _present_from(settings)))


@dg.multi_asset(specs=[_spec(SONG_ERRORS, PER_SONG)], retry_policy=RETRY_POLICY)
def song_errors(store: dg.ResourceParam[ObjectStore]) -> dg.MaterializeResult[Any]:
    """Collect every error that a per-song table holds into one file."""
    return _result(build_song_errors(store))
