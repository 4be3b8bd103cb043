"""``song_catalog``, ``instrument_catalog`` and ``song_errors``: one compact file each over the whole collection.

Beside it, each has a Delta table with its earlier versions.
"""

from collections.abc import Iterator
from datetime import timedelta
from functools import cache
from typing import Any, Final

import dagster as dg
import polars as pl

from bandscope_dagster.catalogs.agreement import disagreements, read_song_states, status_counts
from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import Refreshed, refresh
from bandscope_dagster.catalogs.song_errors import latest_problems
from bandscope_dagster.orchestration.executors import resource_requests
from bandscope_dagster.orchestration.policies import RETRY_POLICY
from bandscope_dagster.orchestration.sensors.refresh_catalogs import REFRESH_DAILY_S
from bandscope_dagster.orchestration.table_metadata import asset_spec
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import (
    CATALOG_TABLES,
    SONG_CATALOG,
    SONG_ERRORS,
)
from bandscope_dagster.tagging.registry import present_from

TAGS: Final = ("instrument_tags", "stem_instrument_tags")
"""The ends of the graph before the catalogs. All catalogs also need the tables before these, which the graph implies.

A run that has only such a table and a catalog has no order between the two; the sensor refreshes the catalogs after it.
"""

FRESHNESS: Final = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(seconds=REFRESH_DAILY_S, hours=1),
    fail_window=timedelta(seconds=REFRESH_DAILY_S, hours=6),
)
"""The sensor refreshes the catalogs after every batch and once a day; if they are older, it is off or fails.

Assets of songs have no such policy: a song never becomes too old, and nothing is late without new uploads.
"""

PROBLEMS_SHOWN: Final = 50  # songs; the materialization of each refresh keeps them
PROBLEM_COLUMNS: Final = dg.TableSchema(
    [dg.TableColumn(name, "string") for name in ("song_id", "status", "reason", "message", "since")]
)

AGREES: Final = "agrees_with_the_tables"


def _metadata(done: Refreshed) -> dict[str, Any]:
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


def _latest_problems(store: ObjectStore, states: pl.DataFrame | None) -> dg.TableMetadataValue:
    """The songs that were rejected or failed last. Their partitions do not show it: a rejected song is green."""
    rows = latest_problems(store, states, PROBLEMS_SHOWN)
    return dg.TableMetadataValue([dg.TableRecord(row) for row in rows], PROBLEM_COLUMNS)


@dg.multi_asset(
    name="catalogs",
    specs=[
        asset_spec(table, "catalog", "polars", TAGS, freshness_policy=FRESHNESS) for table in CATALOG_TABLES
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
    song_states = cache(lambda: read_song_states(store))  # called when song_catalog, the first, is stored
    wanted = [
        catalog
        for catalog in all_catalogs(present_from(settings.present_from, settings.audible_db))
        if dg.AssetKey(catalog.table.name) in context.selected_asset_keys
    ]
    refreshes = refresh(store, wanted, context.log.info, settings.history_days)
    for catalog, done in zip(wanted, refreshes, strict=True):
        songs[catalog.table.name] = done.changes.songs
        metadata = _metadata(done)
        if catalog.table is SONG_CATALOG:
            states = song_states()
            counts = {} if states is None else status_counts(states)
            metadata |= {f"songs_{status}": count for status, count in counts.items()}
        if catalog.table is SONG_ERRORS:
            metadata["latest_problems"] = _latest_problems(store, song_states())
        yield dg.MaterializeResult(asset_key=catalog.table.name, metadata=metadata)
    for table in CATALOG_TABLES:
        key = dg.AssetKey(table.name)
        if dg.AssetCheckKey(key, AGREES) in context.selected_asset_check_keys:
            found = list(disagreements(store, table, song_states(), songs.get(table.name)))
            yield dg.AssetCheckResult(
                passed=not found,
                asset_key=key,
                check_name=AGREES,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(found) or None,
            )
