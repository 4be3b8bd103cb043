"""The assets ``decoded_waveforms``, ``stems``, ``instrument_tags`` and ``stem_instrument_tags``: one pass per song."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import dagster as dg

from assets.checks import ANALYSIS_CHECKS, analysis_checks
from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.orchestration.executors import resource_requests
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS
from bandscope_dagster.orchestration.policies import BACKFILL_POLICY, RETRY_POLICY
from bandscope_dagster.orchestration.pool_turn import MODELS_POOL, wait_for_place
from bandscope_dagster.orchestration.resources import Models
from bandscope_dagster.orchestration.run_tags import tag_run
from bandscope_dagster.orchestration.shared_songs import in_turn
from bandscope_dagster.orchestration.song_events import (
    Upstream,
    already_emitted,
    materialization,
    step_output,
)
from bandscope_dagster.orchestration.songs_step import failed_before
from bandscope_dagster.orchestration.steps import raise_failures, song_step, songs_of_run
from bandscope_dagster.orchestration.table_metadata import asset_spec, written_metadata
from bandscope_dagster.pictures.song_picture import as_markdown
from bandscope_dagster.pipeline.failures import FailureLog, recorded
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.pipeline.resource_usage import peak_device_memory_mb, peak_memory_mb
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.settings import Settings, load_settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables import schemas
from bandscope_dagster.storage.tables.schemas import STEMS

DEPENDENCIES: Final[Mapping[str, Sequence[str]]] = {
    "decoded_waveforms": ["songs"],
    "stems": ["songs", "decoded_waveforms"],
    "instrument_tags": ["songs", "decoded_waveforms"],
    "stem_instrument_tags": ["songs", "stems"],
}
"""Every table needs the song's row, so each depends on ``songs``, also if the tables in between are not selected."""

# The tags and the pool of an op are the same in all of its runs, so they follow from the settings, not from the assets
# that a run selects.
_SETTINGS: Final = load_settings()
_POOL: Final = MODELS_POOL if _SETTINGS.takes_turns else None


@dg.multi_asset(
    name="analyze",
    specs=[
        asset_spec(
            table,
            "analysis",
            "pytorch" if table.model else "ffmpeg",
            DEPENDENCIES[table.name],
            skippable=True,
        )
        for table in schemas.ANALYSIS_TABLES
    ],
    check_specs=[spec for specs in ANALYSIS_CHECKS.values() for spec in specs],
    can_subset=True,
    partitions_def=SONGS_PARTITIONS,
    backfill_policy=BACKFILL_POLICY,
    retry_policy=RETRY_POLICY,
    pool=_POOL,
    op_tags=resource_requests(cpus=2, memory_gib=6, gpus=_SETTINGS.gpus_asked),
)
def analyze(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    store: dg.ResourceParam[ObjectStore],
    models: dg.ResourceParam[Models],
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.MaterializeResult[Any]]:
    """Decode, store, separate and tag the songs of the batch; report each song as soon as it is stored."""
    from bandscope_dagster.pipeline.analyze import (
        analyze_batch,
    )  # it loads decoders, which no definition needs

    with song_step(context.instance):
        keys = songs_of_run(context)
        tag_run(context)
        selected = {key.to_user_string() for key in context.selected_asset_keys}
        tables = [table for table in ANALYSIS_TABLES if table in selected]
        emitted = already_emitted(context)
        upstream = Upstream(context)
        failed: list[SongFailed] = []
        unread = failed_before(context)
        keys = [key for key in keys if key not in {song.song_id for song in unread}]

        def outcomes() -> Iterator[SongAnalyzed | SongFailed]:
            for part, reuse in in_turn(context, keys):
                if _POOL is not None:
                    wait_for_place(context, _POOL)  # again: others may have taken it while this run waited
                yield from analyze_batch(
                    part, tables, store, models, settings, context.run.run_id, reuse=reuse
                )

        for outcome in recorded(chain(unread, outcomes()), tables, FailureLog(store, context.run.run_id)):
            if isinstance(outcome, SongFailed):
                context.log.error(f"{outcome.song_id}: failed: {outcome.error}")
                failed.append(outcome)
                continue
            song_id = outcome.plan.song_id
            metadata = _metadata(outcome)
            for table in outcome.plan.tables:
                if (table, song_id) not in emitted:
                    yield materialization(outcome, table, DEPENDENCIES[table], metadata[table], upstream)
                    yield from analysis_checks(outcome, table, upstream.made(table, song_id))
            upstream.forget(song_id)
        raise_failures(failed, len(unread) + len(keys))
        for table in tables:  # without it, Dagster would skip the pages and the catalogs in a run with them
            yield step_output(table)


def _metadata(outcome: SongAnalyzed) -> dict[str, dict[str, Any]]:
    """Table → the metadata of one song that the UI shows; the UI plots numbers over songs."""
    plan = outcome.plan
    of_song = {} if plan.rejected is not None else {"duration_s": plan.duration_s}
    shown: dict[str, dict[str, Any]] = {table: dict(of_song) for table in plan.tables}
    for table, written in outcome.written.items():
        shown[table] |= written_metadata(written)
        if plan.rejected is not None:
            shown[table]["error"] = plan.rejected
        elif outcome.seconds:
            shown[table] |= {
                "seconds": round(outcome.seconds, 2),
                "realtime_factor": round(plan.duration_s / outcome.seconds, 2),
                "peak_memory_mb": round(peak_memory_mb()),
            }
    if outcome.quality is not None:
        shown["stems"] |= _quality_metadata(outcome.quality)
    if outcome.used is not None:
        used = outcome.used
        segment_s = round(used.segment / SAMPLE_RATE, 2)
        shown["stems"] |= {"device": used.device, "batch": used.batch, "segment_s": segment_s}
        if (device_mb := peak_device_memory_mb(used.device)) is not None:
            shown["stems"]["peak_device_memory_mb"] = round(device_mb)
    for table, tags in outcome.tags.items():
        shown[table] |= {
            "top_instruments": dg.MetadataValue.json(dict(tags.top_instruments)),
            "windows": tags.windows,
            "windows_lost": tags.lost,
            "unmapped_share": round(tags.unmapped_share, 4),
            "device": tags.device,
            "batch": tags.batch,
        }
    for table, seconds in outcome.load_seconds.items():
        if table in outcome.written:
            shown[table]["load_seconds"] = round(seconds, 2)
    if outcome.picture is not None:
        # Once per song: Dagster stores the pictures of thousands of songs in its own database.
        shown[_pictured(outcome)]["picture"] = dg.MetadataValue.md(as_markdown(outcome.picture, plan.song_id))
    return shown


def _pictured(outcome: SongAnalyzed) -> str:
    """The table that shows the song's picture: ``stems``, or else the last table that was written."""
    return STEMS.name if STEMS.name in outcome.written else list(outcome.written)[-1]


def _quality_metadata(quality: SeparationQuality) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if quality.residual_db is not None:
        shown["residual_db"] = round(quality.residual_db, 1)
    for stem in quality.stems:
        shown[f"share_{stem.stem}"] = round(stem.share, 4)
        shown[f"peak_{stem.stem}"] = round(stem.peak, 4)
        if stem.loudness_lufs is not None:
            shown[f"loudness_{stem.stem}"] = round(stem.loudness_lufs, 2)
    if silent := [stem.stem for stem in quality.stems if stem.silent]:
        shown["silent_stems"] = ", ".join(silent)
    return shown
