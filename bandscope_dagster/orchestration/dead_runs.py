"""Runs whose process ended without a record of it: after a power cut, or when all processes were killed at once.

Dagster's default launcher starts runs as processes of the code server, and reports a process that died while the code
server lives. If the code server died too, the run would stay "started" for ever, and no other run would take its songs.
Where another launcher starts runs, Dagster's run monitoring does this.

A run is dead if its process is gone: the process that its first event names, with its start time. Silence is no sign:
a process may take minutes to report its start on a busy machine, or be stopped.
"""

import json
import time
from pathlib import Path
from socket import gethostname
from threading import Lock
from typing import Any, Final

import dagster as dg
import grpc
import psutil

from bandscope_dagster.orchestration.home import is_in_use
from bandscope_dagster.orchestration.private_api import (
    DagsterGrpcClient,
    DagsterUserCodeUnreachableError,
    DefaultRunLauncher,
    GetCurrentRunsResult,
    SqliteRunStorage,
    deserialize_value,
)
from bandscope_dagster.orchestration.run_tags import (
    CODE_SERVER_TAG,
    HOST_TAG,
    LAUNCHER,
    LAUNCHER_TAG,
    is_of_command,
    is_over_songs,
)

BEGUN: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
NAMING: Final = {dg.DagsterEventType.ENGINE_EVENT, dg.DagsterEventType.RUN_START}

HANDED_OVER_WITHIN_S: Final = 60.0
"""For the daemon, from "starting" to its call to the code server. A later process finds its run ended, and stops."""

CLOCK_TICK_S: Final = 1.0  # a process may seem this much younger than its first event

_REPORTING: Final = Lock()  # two sensors may look at the same time, in threads of the code server

GONE: Final = "The process of this run is gone."
GOES_ON: Final = (
    "Its unfinished songs are requested again: by the sensor new_uploads if it is on, and by `bandscope retry` and"
    " `bandscope run`."
)


def end_dead_runs(
    instance: dg.DagsterInstance, *, code_location: str | None = None, only_command: bool = False
) -> list[str]:
    """Mark as failed the runs of this machine that have begun and whose process is gone; returns their ids.

    Several machines or containers may share a PostgreSQL database. There, a code server judges its own runs:
    ``code_location`` is the name of the location whose server this process is. Runs of ``bandscope run`` are judged on
    the host that they name. ``only_command`` is True in the one ``bandscope run`` of a home, before it starts its runs.
    """
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return []
    records = instance.get_run_records(dg.RunsFilter(statuses=BEGUN))
    if isinstance(instance.run_storage, SqliteRunStorage):
        if only_command or not is_in_use(Path(instance.root_directory)):
            # A queue starts runs that have not begun. `bandscope run` has no queue: its run begins at once.
            unqueued = dg.RunsFilter(
                statuses=[dg.DagsterRunStatus.NOT_STARTED], tags={LAUNCHER_TAG: LAUNCHER}
            )
            begins = [r for r in instance.get_run_records(unqueued) if is_of_command(r.dagster_run)]
            records = [*records, *begins]
    else:
        records = [record for record in records if _is_judged_here(record.dagster_run, code_location)]
    ended: list[str] = []
    for run in [record.dagster_run for record in records if _is_dead(instance, record)]:
        with _REPORTING:
            now = instance.get_run_by_id(run.run_id)
            if now is not None and not now.is_finished:
                instance.report_run_failed(run, f"{GONE} {GOES_ON}" if is_over_songs(run) else GONE)
                ended.append(run.run_id)
    return ended


def _is_judged_here(run: dg.DagsterRun, code_location: str | None) -> bool:
    """True if the server of the code location started the run, or was asked to, or ``bandscope run`` on this host."""
    if is_of_command(run):
        return run.tags.get(HOST_TAG) == gethostname()
    origin = run.remote_job_origin
    return (
        code_location is not None
        and CODE_SERVER_TAG in run.tags
        and origin is not None
        and origin.location_name == code_location
    )


def _is_dead(instance: dg.DagsterInstance, record: dg.RunRecord) -> bool:
    """True if the run's process is gone, or there is none and none will come."""
    run = record.dagster_run
    if run.status == dg.DagsterRunStatus.NOT_STARTED:
        return True  # of a `bandscope run` that has ended
    named = _named_process(instance, run.run_id)
    if named is None:
        return _never_begins(run, record.update_timestamp.timestamp())
    pid, timestamp = named
    try:
        process = psutil.Process(pid)
        # A zombie has exited; PIDs are reused, so compare start times.
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > timestamp + CLOCK_TICK_S
    except psutil.NoSuchProcess:
        return True


def _named_process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """The process id in the run's first event that has one, and the event's time (seconds since 1970)."""
    for entry in instance.all_logs(run_id, of_type=NAMING):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_engine_event and (pid := event.engine_event_data.metadata.get("pid")) is not None:
            return int(str(pid.value)), entry.timestamp
        if event.event_type == dg.DagsterEventType.RUN_START and event.pid is not None:
            return event.pid, entry.timestamp
    return None


def _never_begins(run: dg.DagsterRun, since: float) -> bool:
    """True if no process can still begin a run that is "starting" ``since`` (seconds since 1970)."""
    if since < _first_process_began():
        return True
    return time.time() - since > HANDED_OVER_WITHIN_S and not _may_be_known(run)


def _first_process_began() -> float:
    """When this machine, or this container, started (seconds since 1970): all its processes are younger."""
    try:
        return psutil.Process(1).create_time()
    except psutil.Error:  # processes of other users may be hidden
        return psutil.boot_time()


def _may_be_known(run: dg.DagsterRun) -> bool:
    """True if the code server that was asked to start the run has a process for it, or gives no answer in time."""
    if CODE_SERVER_TAG not in run.tags:
        return False
    place: dict[str, Any] = json.loads(run.tags[CODE_SERVER_TAG])
    client = DagsterGrpcClient(
        host=place["host"],
        port=place.get("port"),
        socket=place.get("socket"),
        use_ssl=place.get("use_ssl", False),
    )
    try:
        known = deserialize_value(client.get_current_runs(), GetCurrentRunsResult)
    except DagsterUserCodeUnreachableError as error:
        call = error.__cause__  # without a server at this address: it is gone
        return not isinstance(call, grpc.Call) or call.code() != grpc.StatusCode.UNAVAILABLE
    return run.run_id in known.current_runs
