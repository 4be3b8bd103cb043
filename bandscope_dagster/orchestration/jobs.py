"""The jobs that people and sensors start: each is a named part of the graph."""

from typing import Final

import dagster as dg
from pydantic import Field

from bandscope_dagster.orchestration.retry_backfill import retry_songs as request_retry
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import CATALOG_TABLES, SONG_TABLES

PER_SONG: Final = tuple(table.name for table in SONG_TABLES)
CATALOGS: Final = tuple(table.name for table in CATALOG_TABLES)

process_songs: Final = dg.define_asset_job(
    "process_songs",
    selection=list(PER_SONG),
    description="The whole path of each song: validate, store the waveform, separate, and tag mixture and stems.",
)

validate_songs: Final = dg.define_asset_job(
    "validate_songs",
    selection=["songs"],
    description="Only read each upload to its end and describe it, or reject it with a reason. Needs no GPU.",
)

tag_songs: Final = dg.define_asset_job(
    "tag_songs",
    selection=["songs", "instrument_tags"],
    description="The fast path for a large library: validate, and tag the mixture; no stems.",
)

separate_songs: Final = dg.define_asset_job(
    "separate_songs",
    selection=["songs", "stems"],
    description="Validate, and separate each song into stems; no tags.",
)

write_pages: Final = dg.define_asset_job(
    "write_pages",
    selection=["song_pages"],
    description="A page for each song with what is computed so far: its stems to play, its instruments to see.",
)

refresh_catalogs: Final = dg.define_asset_job(
    "refresh_catalogs",
    selection=list(CATALOGS),
    description="Compact the tables of all songs into the catalogs. A sensor starts it after each batch.",
)


class RetryConfig(dg.Config):
    """The assets to retry; by default all."""

    assets: list[str] = Field(default=list(PER_SONG), description="Only these per-song assets.")


def _requests(name: str, songs: str, *, outdated: bool) -> dg.OpDefinition:
    """An op that requests one backfill of some songs, which computes only what they lack."""

    @dg.op(
        name=name, description=f"Find the songs that {songs}, and request a backfill of them from the daemon."
    )
    def request(
        context: dg.OpExecutionContext,
        config: RetryConfig,
        settings: dg.ResourceParam[Settings],
        store: dg.ResourceParam[ObjectStore],
    ) -> None:
        _request(context, settings, store, config.assets, outdated=outdated)

    return request


find_and_request: Final = _requests("find_and_request", "failed or are missing", outdated=False)
find_outdated_and_request: Final = _requests(
    "find_outdated_and_request",
    "were computed with other models, parameters or code than those in force",
    outdated=True,
)


def _request(
    context: dg.OpExecutionContext,
    settings: Settings,
    store: ObjectStore,
    assets: list[str],
    *,
    outdated: bool,
) -> None:
    what = "outdated" if outdated else "failed or missing"
    retry = request_retry(context.instance, store, assets, settings, outdated=outdated)
    if retry.in_progress:
        context.log.info(f"{retry.in_progress} songs are in runs that are queued or running.")
    if retry.backfill_id is None:
        context.log.info(f"No other song is {what}.")
        return
    context.log.info(
        f"{retry.unfinished} songs are {what}: backfill {retry.backfill_id} computes them"
        f" in {len(retry.ranges)} ranges."
    )
    context.add_output_metadata(
        {
            "songs": retry.unfinished,
            "ranges": len(retry.ranges),
            "backfill": dg.MetadataValue.path(f"/runs/b/{retry.backfill_id}"),
        }
    )


@dg.job(
    description="Compute all failed or missing results and keep finished ones. Its runs are one backfill."
)
def retry_songs() -> None:
    """Start it from the UI without any configuration."""
    find_and_request()


@dg.job(
    description="Compute again what was computed with other models, weights, parameters or code than those in force,"
    " and keep the rest. Its runs are one backfill."
)
def update_outdated_songs() -> None:
    """Start it from the UI without any configuration."""
    find_outdated_and_request()


JOBS: Final = [
    process_songs,
    validate_songs,
    tag_songs,
    separate_songs,
    write_pages,
    refresh_catalogs,
    retry_songs,
    update_outdated_songs,
]
