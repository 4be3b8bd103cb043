"""``songs``: one row per upload, which is read once, decoded completely, and described."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.checks import SONG_CHECKS, song_checks
from bandscope_dagster.orchestration.executors import resource_requests
from bandscope_dagster.orchestration.in_force import versions_in_force
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS
from bandscope_dagster.orchestration.policies import BACKFILL_POLICY, RETRY_POLICY
from bandscope_dagster.orchestration.pool_turn import MODELS_POOL, has_place
from bandscope_dagster.orchestration.resources import Models
from bandscope_dagster.orchestration.run_tags import tag_run
from bandscope_dagster.orchestration.shared_songs import in_turn
from bandscope_dagster.orchestration.song_events import (
    UPLOADS_ASSET,
    Upstream,
    already_emitted,
    song_materialization,
)
from bandscope_dagster.orchestration.songs_step import is_followed_by_analysis, songs_output, tables_of_run
from bandscope_dagster.orchestration.steps import raise_failures, song_step, songs_of_run
from bandscope_dagster.orchestration.table_metadata import column_schema, written_metadata
from bandscope_dagster.pipeline.outcomes import SongFailed
from bandscope_dagster.pipeline.plan import SongPlanner
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS

if TYPE_CHECKING:
    from bandscope_dagster.pipeline.validate import SongChecked


@dg.multi_asset(
    name="songs",
    specs=[
        dg.AssetSpec(
            "songs",
            deps=[UPLOADS_ASSET],
            description=SONGS.description,
            group_name="songs",
            kinds={"python", "parquet"},
            owners=["team:bandscope"],
            code_version=versions_in_force()["songs"],
            metadata={"dagster/column_schema": column_schema(SONGS)},
        )
    ],
    check_specs=SONG_CHECKS,
    can_subset=True,
    partitions_def=SONGS_PARTITIONS,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
    op_tags=resource_requests(cpus=1, memory_gib=2),
)
def songs(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[ObjectStore],
    models: dg.ResourceParam[Models],
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.MaterializeResult[Any]]:
    """Check every upload of the batch, and report each song as soon as its row is stored.

    A bad upload becomes a row with the reason. A song that fails is not reported as materialized, and the step of the
    analysis in the same run fails for it; without such a step, this one fails, after all other songs.
    """
    from bandscope_dagster.pipeline.validate import (
        check_songs,
    )  # it loads decoders, which no definition needs

    with song_step(context.instance):
        keys = songs_of_run(context)
        loads_here = settings.executor == "in_process" and is_followed_by_analysis(context)
        if loads_here and has_place(context, MODELS_POOL):
            models.load_ahead(tables_of_run(context))
        uploads = list_uploads(store).by_song
        tag_run(context, (uploads[key].owner for key in keys if key in uploads))
        planner = SongPlanner(run_id=context.run.run_id)
        upstream = Upstream(context)
        emitted = already_emitted(context)
        failed: list[SongFailed] = []
        for part, reuse in in_turn(context, keys):
            for song in check_songs(part, uploads, store, settings.limits, planner, reuse=reuse):
                if song.failure is not None:
                    context.log.error(f"{song.song_id}: {song.failure}")
                    failed.append(SongFailed(song.song_id, song.failure))
                    yield from song_checks(song, None)
                elif ("songs", song.song_id) not in emitted:
                    yield song_materialization(song.song_id, _metadata(song))
                    yield from song_checks(song, upstream.made("songs", song.song_id))
        if not is_followed_by_analysis(context):
            raise_failures(failed, len(keys))
        yield songs_output(failed)


def _metadata(checked: "SongChecked") -> dict[str, Any]:
    row = checked.row
    shown = {
        name: row[name] for name in ("filename", "duration_s", "loudness_lufs", "codec", "error", "warning")
    }
    metadata: dict[str, Any] = {name: value for name, value in shown.items() if value is not None}
    if checked.written is not None:
        metadata |= written_metadata(checked.written)
    metadata |= {"reused": checked.reused, "seconds": round(checked.seconds, 3)}
    return metadata
