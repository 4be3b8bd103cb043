"""``song_pages``: a page per song, to play its stems and see its instruments."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any, Final

import dagster as dg

from bandscope_dagster.orchestration.executors import resource_requests
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS
from bandscope_dagster.orchestration.policies import PAGES_BACKFILL_POLICY, RETRY_POLICY
from bandscope_dagster.orchestration.run_tags import tag_run, wants_reuse
from bandscope_dagster.orchestration.song_events import DATA_VERSION_DIGITS, Upstream, already_emitted
from bandscope_dagster.orchestration.steps import raise_failures, song_step, songs_of_run
from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.song_page import CODE_VERSION, WrittenPage, write_page
from bandscope_dagster.pipeline.outcomes import SongFailed
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.registry import present_from

DEPENDENCIES: Final = ("songs", "stems", "instrument_tags", "stem_instrument_tags")


@dg.multi_asset(
    name="song_pages",
    specs=[
        dg.AssetSpec(
            "song_pages",
            deps=DEPENDENCIES,
            description="One self-contained HTML file per song: mixture and stems to play, solo and mute, the "
            "instruments over time, levels, checks and lineage; and an index of all pages, `index.html`. The page of "
            "a rejected song shows the reason.",
            group_name="pages",
            kinds={"html"},
            owners=["team:bandscope"],
            code_version=CODE_VERSION,
            skippable=True,
        )
    ],
    can_subset=True,
    partitions_def=SONGS_PARTITIONS,
    backfill_policy=PAGES_BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
    op_tags=resource_requests(cpus=1, memory_gib=2),
)
def song_pages(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[ObjectStore],
) -> Iterator[dg.AssetMaterialization]:
    """Write the pages of the batch, report each as soon as it is stored, then write the index of all pages."""
    with song_step(context.instance):
        keys = songs_of_run(context)
        tag_run(context)
        upstream = Upstream(context)
        emitted = already_emitted(context)
        reuse = wants_reuse(context)
        present = present_from(settings.present_from, settings.audible_db)
        pages = PageFolder(store)
        failed: list[SongFailed] = []
        for song_id in keys:
            started = perf_counter()
            try:
                page = write_page(store, pages, song_id, present, keep=reuse)
            except Exception as error:  # whatever fails, the other songs continue
                context.log.error(f"{song_id}: failed: {error}")
                failed.append(SongFailed(song_id, error))
                continue
            seconds = perf_counter() - started
            if ("song_pages", song_id) not in emitted:
                yield _materialization(page, seconds, upstream)
        write_index(pages)
        raise_failures(failed, len(keys))


def _materialization(page: WrittenPage, seconds: float, upstream: Upstream) -> dg.AssetMaterialization:
    """The event of one page, with the version tags that Dagster adds only to the results of a whole step."""
    link = dg.MetadataValue.url(page.uri) if "://" in page.uri else dg.MetadataValue.path(page.uri)
    metadata: dict[str, Any] = {
        "page": link,
        "dagster/uri": page.uri,
        "status": page.status,
        "reused": page.kept,
    }
    if not page.kept:
        metadata |= {"size_mb": round(page.bytes / 1e6, 3), "seconds": round(seconds, 3)}
    tags = {"dagster/data_version": page.digest[:DATA_VERSION_DIGITS], "dagster/code_version": CODE_VERSION}
    tags |= upstream.version_tags(DEPENDENCIES, page.song_id)
    upstream.forget(page.song_id)
    return dg.AssetMaterialization("song_pages", partition=page.song_id, metadata=metadata, tags=tags)
