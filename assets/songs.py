"""``songs``: one row per upload, which is read once, decoded completely, and described."""

from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

import dagster as dg

from assets.checks import SONG_CHECKS, song_checks
from bandscope_dagster.input_digests import CODE_VERSIONS
from bandscope_dagster.orchestration.executors import resource_requests
from bandscope_dagster.orchestration.in_force import VERSIONS
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS
from bandscope_dagster.orchestration.policies import BACKFILL_POLICY, RETRY_POLICY
from bandscope_dagster.orchestration.run_tags import tag_run, wants_reuse
from bandscope_dagster.orchestration.song_events import Upstream
from bandscope_dagster.orchestration.steps import song_step, songs_checked, songs_of_run
from bandscope_dagster.orchestration.table_metadata import column_schema, written_metadata
from bandscope_dagster.pipeline.plan import SongPlanner
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.pipeline.validate import SongChecked, check_songs
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS

TELL_EVERY_S: Final = 2.0


@dg.multi_asset(
    name="songs",
    specs=[
        dg.AssetSpec(
            "songs",
            description=SONGS.description,
            group_name="songs",
            kinds={"python", "parquet"},
            owners=["team:bandscope"],
            code_version=VERSIONS["songs"],
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
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckEvaluation]:
    """Check every upload of the batch; a bad upload becomes a row with the reason, and does not stop the others."""
    with song_step(context.instance):
        keys = songs_of_run(context)
        uploads = list_uploads(store).by_song
        tag_run(context, (uploads[key].owner for key in keys if key in uploads))
        planner = SongPlanner(run_id=context.run.run_id)
        checked: list[SongChecked] = []
        told = monotonic()
        for song in check_songs(keys, uploads, store, settings.limits, planner, reuse=wants_reuse(context)):
            context.add_asset_metadata(_metadata(song), asset_key="songs", partition_key=song.song_id)
            checked.append(song)
            if monotonic() - told > TELL_EVERY_S:
                context.log.info(songs_checked(len(checked), len(keys)))
                told = monotonic()
        # One result for the whole batch: without it, Dagster would skip the next steps of the run. All songs share the
        # data version; this is correct, because a partition key already identifies the upload's content.
        yield dg.MaterializeResult(asset_key="songs", data_version=dg.DataVersion(CODE_VERSIONS["songs"]))
        # The checks refer to materializations, which exist only now.
        upstream = Upstream(context)
        for song in checked:
            yield from song_checks(song, upstream.record("songs", song.song_id))


def _metadata(checked: SongChecked) -> dict[str, Any]:
    row = checked.row
    shown = {
        name: row[name] for name in ("filename", "duration_s", "loudness_lufs", "codec", "error", "warning")
    }
    metadata: dict[str, Any] = {name: value for name, value in shown.items() if value is not None}
    if checked.written is not None:
        metadata |= written_metadata(checked.written)
    metadata |= {"reused": checked.reused, "seconds": round(checked.seconds, 3)}
    return metadata
