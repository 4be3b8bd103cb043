"""The sensor that refreshes the catalogs after runs over songs: once for all that have ended since the last time.

A declarative ``AutomationCondition`` sees songs, not runs: it would refresh in the middle of a batch, for slow models
after every song, and the built-in ``eager()`` waits for songs that may never come. What is wanted hangs on the end of
runs, however they end; so that is what is asked of Dagster. Nothing is remembered between two ticks.
"""

import time
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.jobs import CATALOGS
from bandscope_dagster.orchestration.song_events import RANGE_START_TAG

REFRESH_EVERY_S: Final = 60
"""While many runs end one after another, the catalogs are refreshed no more often than this."""

REFRESH_DAILY_S: Final = 24 * 3600.0
"""Also without new songs, so that catalogs that are older mean that nobody refreshes them."""

FAILED_AGAIN_AFTER_S: Final = 600.0

ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PARTITION_TAG: Final = "dagster/partition"
LOOKED_AT: Final = 200  # runs, the newest first


def catalogs_sensor(job_name: str, *, every_s: int = REFRESH_EVERY_S) -> dg.SensorDefinition:
    """The sensor that starts the job, which refreshes the catalogs."""

    @dg.sensor(
        name="refresh_catalogs_after_runs",
        job_name=job_name,
        minimum_interval_seconds=every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Refreshes the catalogs when runs over songs have ended, also failed ones and while others go on:"
            f" once for all of them, at most every {every_s} s, and at least once a day."
        ),
    )
    def refresh_catalogs_after_runs(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        for run_id in end_dead_runs(context.instance):
            context.log.warning(f"The process of run {run_id} is gone: it has failed.")
        attempt = _last_attempt(context.instance)
        if attempt is not None and attempt.dagster_run.status not in ENDED:
            return dg.SkipReason("A refresh of the catalogs is queued or running.")
        # A run that never began has read nothing.
        began = attempt.start_time or 0.0 if attempt is not None else 0.0
        ended = _runs_ended_since(context.instance, began)
        if ended:
            context.log.info(f"{ended} runs over songs have ended since the catalogs were refreshed.")
            return dg.RunRequest()
        if attempt is not None and time.time() - attempt.create_timestamp.timestamp() > _patience_s(attempt):
            return dg.RunRequest()
        return dg.SkipReason("No run over songs has ended since the catalogs were refreshed.")

    return refresh_catalogs_after_runs


def _patience_s(attempt: dg.RunRecord) -> float:
    succeeded = attempt.dagster_run.status == dg.DagsterRunStatus.SUCCESS
    return REFRESH_DAILY_S if succeeded else FAILED_AGAIN_AFTER_S


def _last_attempt(instance: dg.DagsterInstance) -> dg.RunRecord | None:
    """The last run that refreshed all catalogs, or tried to, or will: whoever started it.

    Where they were last refreshed by different runs, the one that began first.
    """
    records = instance.get_asset_records([dg.AssetKey(catalog) for catalog in CATALOGS])
    run_ids = {run_id for record in records if (run_id := record.asset_entry.last_run_id)}
    # Dagster also has a record of an asset that no run has touched: its freshness is evaluated.
    if len(records) < len(CATALOGS) or not run_ids:
        return None
    runs = instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids)))
    if len(runs) < len(run_ids):  # a catalog was wiped, or its run deleted: as if never made
        return None
    return min(runs, key=lambda run: (run.dagster_run.status in ENDED, run.start_time or 0.0), default=None)


def _runs_ended_since(instance: dg.DagsterInstance, since: float) -> int:
    """How many runs over songs ended, well or not, after ``since`` (seconds since 1970)."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=ENDED, updated_after=datetime.fromtimestamp(since, UTC)),
        limit=LOOKED_AT,
        order_by="update_timestamp",
    )
    return sum(
        1
        for record in records
        if record.dagster_run.tags.keys() & {PARTITION_TAG, RANGE_START_TAG}
        and (record.end_time or 0.0) > since
    )
