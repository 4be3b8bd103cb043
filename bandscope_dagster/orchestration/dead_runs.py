"""Runs whose process ended without a record of it: after a power cut, or when all processes were killed at once.

Dagster's default launcher starts runs as processes on this machine, and reports a process that died while the code
server lives. If the code server died too, the run would stay "started" for ever, and no other run would take its songs.
Where another launcher starts runs, or several machines share a database, Dagster's run monitoring does this.
"""

import time
from typing import Final

import dagster as dg
import psutil

from bandscope_dagster.orchestration.private_api import DefaultRunLauncher, SqliteRunStorage
from bandscope_dagster.orchestration.run_tags import LAUNCHER, LAUNCHER_TAG

BEGUN: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
STARTS_WITHIN_S: Final = 60.0
"""For a run's process, after its run has left the queue. A later process finds its run ended, and does nothing."""

CLOCK_TICK_S: Final = 1.0  # a process may seem this much younger than its first event


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the runs of this machine that have begun and whose process is gone; returns their ids.

    Does nothing in homes that more than one machine may share.
    """
    on_this_machine = isinstance(instance.run_launcher, DefaultRunLauncher)
    if not on_this_machine or not isinstance(instance.run_storage, SqliteRunStorage):
        return []
    # A queue starts runs that have not begun. `bandscope run` has no queue: its run begins at once, or was killed.
    unqueued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED], tags={LAUNCHER_TAG: LAUNCHER})
    begun = [
        *instance.get_run_records(dg.RunsFilter(statuses=BEGUN)),
        *instance.get_run_records(unqueued),
    ]
    dead = [record.dagster_run for record in begun if _is_dead(instance, record)]
    for run in dead:
        instance.report_run_failed(
            run, "The process of this run is gone; another run continues with its songs."
        )
    return [run.run_id for run in dead]


def _is_dead(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """True if the run's process is gone, or did not start in time."""
    starts = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.RUN_START)
    if not starts or (event := starts[-1].dagster_event) is None or event.pid is None:
        return time.time() - record.update_timestamp.timestamp() > STARTS_WITHIN_S
    try:
        process = psutil.Process(event.pid)
        # A zombie has exited; PIDs are reused, so compare start times.
        return (
            process.status() == psutil.STATUS_ZOMBIE
            or process.create_time() > starts[-1].timestamp + CLOCK_TICK_S
        )
    except psutil.NoSuchProcess:
        return True
