"""Dead runs: runs whose process is gone are found, and no others; with real processes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from daemon import open_instance, wait_for

from bandscope_dagster.orchestration import dead_runs
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.run_tags import LAUNCHER, LAUNCHER_TAG

# A process that starts a run, and never ends it.
RUN = """
import os, signal, sys, time
import dagster as dg
@dg.op
def work():
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[1] == "dies" else time.sleep(600)
@dg.job
def job():
    work()
job.execute_in_process(instance=dg.DagsterInstance.get())
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A home with the dagster.yaml of `bandscope`."""
    (tmp_path / "dagster.yaml").write_text(DAGSTER_YAML)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with open_instance(tmp_path) as instance:
        yield instance


def run_in_a_process(how: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, how], stderr=subprocess.DEVNULL)


def statuses(instance: dg.DagsterInstance) -> list[str]:
    return [run.status.value for run in instance.get_runs()]


def test_a_run_fails_after_its_process_has_gone(instance: dg.DagsterInstance) -> None:
    living = run_in_a_process("lives")
    try:
        wait_for("it has begun", lambda: statuses(instance) == ["STARTED"])
        dead = run_in_a_process("dies")
        dead.wait()
        assert statuses(instance) == ["STARTED", "STARTED"], "Dagster itself does not know"
        (ended,) = end_dead_runs(instance)
        assert statuses(instance) == ["FAILURE", "STARTED"]
        assert end_dead_runs(instance) == []
        (failure,) = instance.all_logs(ended, of_type=dg.DagsterEventType.RUN_FAILURE)
        assert "process of this run is gone" in failure.message
    finally:
        living.kill()
        living.wait()
    assert len(end_dead_runs(instance)) == 1


def test_a_reused_process_id_is_another_process(instance: dg.DagsterInstance) -> None:
    run_in_a_process("dies").wait()
    (run,) = instance.get_runs()
    (began,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_START)
    living = run_in_a_process("lives")  # younger than the run's first event
    try:
        event = began.dagster_event._replace(pid=living.pid)
        entry = dg.EventLogEntry(
            **{**began._asdict(), "dagster_event": event, "timestamp": began.timestamp - 60}
        )
        instance.handle_new_event(entry)
        assert end_dead_runs(instance) == [run.run_id]
    finally:
        living.kill()
        living.wait()


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED])
def test_a_run_that_has_not_begun_gets_time_to_start(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.job
    def job() -> None: ...

    run = instance.create_run_for_job(job, tags={LAUNCHER_TAG: LAUNCHER}, status=status)
    assert end_dead_runs(instance) == []
    monkeypatch.setattr(dead_runs, "STARTS_WITHIN_S", 0.0)
    assert end_dead_runs(instance) == [run.run_id]


def test_a_run_that_a_daemon_is_about_to_queue_is_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.job
    def job() -> None: ...

    monkeypatch.setattr(dead_runs, "STARTS_WITHIN_S", 0.0)
    instance.create_run_for_job(job)
    assert end_dead_runs(instance) == []


def test_homes_of_several_machines_are_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_a_process("dies").wait()
    monkeypatch.setattr(dead_runs, "SqliteRunStorage", type("Elsewhere", (), {}))
    assert end_dead_runs(instance) == []
