"""The sensor that refreshes the catalogs after runs over songs: once for all runs that ended since the last refresh.

A declarative ``AutomationCondition`` sees songs, not runs: it would refresh in the middle of a batch, with slow models
after every song, and the built-in ``eager()`` waits for songs that may never come. The sensor therefore asks Dagster
for runs that have ended, in any state. It keeps no state between two ticks.
"""

import time
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.jobs import CATALOGS
from bandscope_dagster.orchestration.run_tags import PARTITION_TAG, RANGE_START_TAG

INTERVAL_S: Final = 60
"""The shortest time between two refreshes while many runs end one after another."""

REFRESH_DAILY_S: Final = 24 * 3600.0
"""Also without new songs: older catalogs then mean that the sensor is off or fails."""

FAILED_AGAIN_AFTER_S: Final = 600.0

ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
LOOKED_AT: Final = 200  # runs, the newest first


def catalogs_sensor(job_name: str, *, every_s: int = INTERVAL_S) -> dg.SensorDefinition:
    """The sensor that starts the job, which refreshes the catalogs."""

    @dg.sensor(
        name="refresh_catalogs_after_runs",
        job_name=job_name,
        minimum_interval_seconds=every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Refreshes the catalogs after runs over songs, also failed ones and while other runs continue:"
            f" once for all ended runs, at most every {every_s} s, and at least once a day."
        ),
    )
    def refresh_catalogs_after_runs(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        origin = context.code_location_origin
        for run_id in end_dead_runs(context.instance, code_location=origin and origin.location_name):
            context.log.warning(f"The process of run {run_id} is gone: marked as failed.")
        attempt = _last_attempt(context.instance)
        if attempt is not None and attempt.dagster_run.status not in ENDED:
            return dg.SkipReason("A refresh of the catalogs is queued or running.")
        # A run that never began has read no files.
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
    """The last run that refreshed all catalogs, tried to, or is queued to, started by anyone.

    If different runs refreshed them last, the run that began first.
    """
    records = instance.get_asset_records([dg.AssetKey(catalog) for catalog in CATALOGS])
    run_ids = {run_id for record in records if (run_id := record.asset_entry.last_run_id)}
    # Dagster also keeps a record of an asset without runs, since it evaluates its freshness.
    if len(records) < len(CATALOGS) or not run_ids:
        return None
    runs = instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids)))
    if len(runs) < len(run_ids):  # a catalog was wiped or its run deleted: start over
        return None
    return min(runs, key=lambda run: (run.dagster_run.status in ENDED, run.start_time or 0.0), default=None)


def _runs_ended_since(instance: dg.DagsterInstance, since: float) -> int:
    """The number of runs over songs that ended in any state after ``since`` (seconds since 1970)."""
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
