"""Runs whose process is gone without a word: a power cut, a kill of everything at once.

Dagster's default launcher starts runs as processes of this machine, and reports those that die while their code server
lives. Nobody asks for the others: they would stay "started" for ever, and their songs would be left to them. Where
another launcher starts runs, or several machines share a database, Dagster's run monitoring looks after them.
"""

import time
from typing import Final

import dagster as dg
import psutil
from dagster._core.launcher import DefaultRunLauncher
from dagster._core.storage.runs import SqliteRunStorage

from bandscope_dagster.orchestration.song_events import LAUNCHER, LAUNCHER_TAG

BEGUN: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
STARTS_WITHIN_S: Final = 60.0
"""A run's process, once its run has left the queue. One that is later finds its run ended, and does nothing."""

CLOCK_TICK_S: Final = 1.0  # by which a process may seem younger than what it has said


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark as failed the runs of this machine that have begun and whose process is gone; returns their ids.

    Does nothing in homes that more than one machine may share.
    """
    # Dagster has no public names for what a home is made of.
    ours = isinstance(instance.run_launcher, DefaultRunLauncher)
    if not ours or not isinstance(instance.run_storage, SqliteRunStorage):
        return []
    # A queue starts what has not begun; who runs songs without one has begun, or was killed in that moment.
    unqueued = dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED], tags={LAUNCHER_TAG: LAUNCHER})
    begun = [
        *instance.get_run_records(dg.RunsFilter(statuses=BEGUN)),
        *instance.get_run_records(unqueued),
    ]
    dead = [record.dagster_run for record in begun if _is_dead(instance, record)]
    for run in dead:
        instance.report_run_failed(
            run, "The process of this run is gone; another run goes on with its songs."
        )
    return [run.run_id for run in dead]


def _is_dead(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """Whether the process that did the run is gone, or has not begun where it should have."""
    starts = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.RUN_START)
    if not starts or (event := starts[-1].dagster_event) is None or event.pid is None:
        return time.time() - record.update_timestamp.timestamp() > STARTS_WITHIN_S
    try:
        process = psutil.Process(event.pid)
        # A zombie is dead; and numbers are given again.
        return (
            process.status() == psutil.STATUS_ZOMBIE
            or process.create_time() > starts[-1].timestamp + CLOCK_TICK_S
        )
    except psutil.NoSuchProcess:
        return True
