"""``songs``: every upload, read once, proven to decode, and described in one row."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.checks import SONG_IS_USABLE, song_is_usable
from bandscope_dagster.batches import tag_run, wants_reuse, without_useless_retries
from bandscope_dagster.partitions import SONGS_PARTITIONS
from bandscope_dagster.pipeline.plan import CODE_VERSIONS, SongPlanner
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.pipeline.validation import SongChecked, check_songs
from bandscope_dagster.retries import BACKFILL_POLICY, RETRY_POLICY
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.schemas import SONGS
from bandscope_dagster.table_metadata import column_schema, written_metadata


@dg.multi_asset(
    name="songs",
    specs=[
        dg.AssetSpec(
            "songs",
            description=SONGS.description,
            group_name="songs",
            kinds={"python", "parquet"},
            owners=["team:bandscope"],
            code_version=CODE_VERSIONS["songs"],
            metadata={"dagster/column_schema": column_schema(SONGS)},
        )
    ],
    check_specs=[SONG_IS_USABLE],
    can_subset=True,
    partitions_def=SONGS_PARTITIONS,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
)
def songs(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[ObjectStore],
) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckEvaluation]:
    """Check every upload of the batch; a bad one is a row that says why, and never stops the others."""
    with without_useless_retries():
        keys = list(context.partition_keys)
        uploads = list_uploads(store).by_song
        tag_run(context, (uploads[key].owner for key in keys if key in uploads))
        planner = SongPlanner(run_id=context.run.run_id)
        for number, checked in enumerate(
            check_songs(keys, uploads, store, settings.limits, planner, reuse=wants_reuse(context)), start=1
        ):
            context.log.info(f"{checked.song_id} ({number}/{len(keys)}): {checked.error or 'ok'}")
            context.add_asset_metadata(_metadata(checked), asset_key="songs", partition_key=checked.song_id)
            yield song_is_usable(checked)
        # One result for the whole batch: without it, what follows in the same run would be skipped. The data version is
        # shared, which is right: a partition key already names the upload's content.
        yield dg.MaterializeResult(asset_key="songs", data_version=dg.DataVersion(CODE_VERSIONS["songs"]))


def _metadata(checked: SongChecked) -> dict[str, Any]:
    row = checked.row
    shown = {name: row[name] for name in ("filename", "duration_s", "loudness_lufs", "codec", "error")}
    metadata: dict[str, Any] = {name: value for name, value in shown.items() if value is not None}
    if checked.written is not None:
        metadata |= written_metadata(checked.written)
    metadata |= {"reused": checked.reused, "seconds": round(checked.seconds, 3)}
    return metadata
