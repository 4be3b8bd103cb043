"""``song_catalog``, ``instrument_catalog`` and ``song_errors``: one compact file each over the whole collection."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from bandscope_dagster.catalogs.agreement import disagreements, read_song_states, status_counts
from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import Refreshed, refresh
from bandscope_dagster.orchestration.executors import resource_requests
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.policies import RETRY_POLICY
from bandscope_dagster.orchestration.sensors.refresh_catalogs import REFRESH_DAILY_S
from bandscope_dagster.orchestration.table_metadata import asset_spec
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import (
    CATALOG_TABLES,
    INSTRUMENT_CATALOG,
    SONG_CATALOG,
    SONG_ERRORS,
)
from bandscope_dagster.tagging.registry import present_from

FRESHNESS: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(seconds=REFRESH_DAILY_S, hours=1),
    fail_window=timedelta(seconds=REFRESH_DAILY_S, hours=6),
)
"""The sensor refreshes the catalogs after every batch and once a day; if they are older, it is off or fails."""


AGREES: Final = "agrees_with_the_tables"


def _metadata(done: Refreshed) -> dict[str, str | int | float | bool]:
    return {
        "dagster/uri": done.file.uri,
        "dagster/row_count": done.file.rows,
        "size_mb": round(done.file.bytes / 1e6, 3),
        "songs": done.changes.songs,
        "songs_read": len(done.changes.to_read),
        "songs_removed": done.changes.removed.len(),
        "full": done.changes.full,
        "seconds": round(done.seconds, 3),
    }


@dg.multi_asset(
    name="catalogs",
    specs=[
        asset_spec(table, "catalog", "polars", deps, freshness_policy=FRESHNESS)
        for table, deps in (
            (SONG_CATALOG, PER_SONG),
            (INSTRUMENT_CATALOG, ["instrument_tags", "stem_instrument_tags"]),
            (SONG_ERRORS, PER_SONG),
        )
    ],
    check_specs=[
        dg.AssetCheckSpec(
            AGREES,
            asset=table.name,
            description="The stored file, read back, has the songs that the tables have.",
        )
        for table in CATALOG_TABLES
    ],
    can_subset=True,
    retry_policy=RETRY_POLICY,
    op_tags=resource_requests(cpus=2, memory_gib=4),
)
def catalogs(
    context: dg.AssetExecutionContext,
    store: dg.ResourceParam[ObjectStore],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
    """Update the catalogs with the songs whose files have changed, from one listing of the store, then check them."""
    songs: dict[str, int] = {}  # catalog → the songs in the listing that it was made from
    states = None
    wanted = [
        catalog
        for catalog in all_catalogs(present_from(settings.present_from, settings.audible_db))
        if dg.AssetKey(catalog.table.name) in context.selected_asset_keys
    ]
    for catalog, done in zip(wanted, refresh(store, wanted, report_progress=context.log.info), strict=True):
        songs[catalog.table.name] = done.changes.songs
        metadata = _metadata(done)
        if catalog.table is SONG_CATALOG:
            states = read_song_states(store)
            counts = {} if states is None else status_counts(states)
            metadata |= {f"songs_{status}": count for status, count in counts.items()}
        yield dg.MaterializeResult(asset_key=catalog.table.name, metadata=metadata)
    if states is None and context.selected_asset_check_keys:
        states = read_song_states(store)
    for table in CATALOG_TABLES:
        key = dg.AssetKey(table.name)
        if dg.AssetCheckKey(key, AGREES) in context.selected_asset_check_keys:
            found = list(disagreements(store, table, states, songs.get(table.name)))
            yield dg.AssetCheckResult(
                passed=not found,
                asset_key=key,
                check_name=AGREES,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(found) or None,
            )
