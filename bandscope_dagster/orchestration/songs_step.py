"""The end of the step ``songs``: the analysis in the same run goes on, and knows the songs that failed."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.orchestration.song_events import step_output
from bandscope_dagster.orchestration.steps import FAILED_SONGS, causes_in
from bandscope_dagster.pipeline.failures import failure_text
from bandscope_dagster.pipeline.outcomes import SongFailed
from bandscope_dagster.storage.tables.schemas import SONG_TABLES

ANALYZE = "analyze"  # the step, and its op


def is_followed_by_analysis(context: dg.AssetExecutionContext) -> bool:
    """True if the run has a step ``analyze``, which fails for the songs that failed here."""
    steps = context.run.step_keys_to_execute
    return ANALYZE in {node.name for node in context.job_def.nodes} and (steps is None or ANALYZE in steps)


def tables_of_run(context: dg.AssetExecutionContext) -> set[str]:
    """The tables of songs that the steps of this run compute."""
    assets = {key.to_user_string() for key in context.job_def.asset_layer.executable_asset_keys}
    return {table.name for table in SONG_TABLES if table.name in assets}


def songs_output(failed: Sequence[SongFailed]) -> dg.MaterializeResult[Any]:
    """The output of the step, with the causes of its ``failed`` songs."""
    causes = {song.song_id: failure_text(song.error) for song in failed}
    output = step_output("songs")
    named = {FAILED_SONGS: dg.MetadataValue.json(causes)} if causes else {}
    return dg.MaterializeResult(asset_key="songs", metadata={**(output.metadata or {}), **named})


def failed_before(context: dg.AssetExecutionContext) -> list[SongFailed]:
    """The songs that failed in an earlier step of this run."""
    found: dict[str, str] = {}
    for entry in context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT):
        if entry.dagster_event is not None:
            found |= causes_in(entry.dagster_event.step_output_data.metadata)
    return [SongFailed(song, CannotAnalyze(cause)) for song, cause in found.items()]
