"""Dead runs: runs whose process is gone are found, and no others; with real processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from daemon import open_instance, wait_for
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from bandscope_dagster.orchestration import dead_runs
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home import DAGSTER_YAML, only_one
from bandscope_dagster.orchestration.run_tags import (
    CODE_SERVER_TAG,
    LAUNCHER,
    LAUNCHER_TAG,
    launcher_tags,
)

ORIGIN = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository").get_job_origin("nothing")

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


@dg.job
def nothing() -> None: ...


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


def test_a_run_that_no_server_was_asked_to_start_is_dead_after_a_while(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTING)
    assert end_dead_runs(instance) == [], "the daemon may be about to ask"
    monkeypatch.setattr(dead_runs, "HANDED_OVER_WITHIN_S", 0.0)
    assert end_dead_runs(instance) == [run.run_id]


def test_a_run_that_was_starting_before_the_machine_started_is_dead(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTING)
    monkeypatch.setattr(dead_runs, "_first_process_began", lambda: time.time() + 1)
    assert end_dead_runs(instance) == [run.run_id]


def test_a_run_of_the_command_that_has_not_begun_is_dead_once_the_command_has_ended(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = instance.create_run_for_job(nothing, tags={LAUNCHER_TAG: LAUNCHER})
    with only_one(tmp_path):
        assert end_dead_runs(instance) == [], "the command may be slow"
        assert end_dead_runs(instance, only_command=True) == [run.run_id], "it has no run yet"
    other = instance.create_run_for_job(nothing, tags={LAUNCHER_TAG: LAUNCHER})
    again = instance.create_run_for_job(nothing, tags=launcher_tags(), remote_job_origin=ORIGIN)
    assert end_dead_runs(instance) == [other.run_id]
    assert not instance.get_run_by_id(again.run_id).is_finished, "executed again in the UI, which copies tags"


def test_a_run_that_a_daemon_is_about_to_queue_is_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_runs, "HANDED_OVER_WITHIN_S", 0.0)
    instance.create_run_for_job(nothing)
    assert end_dead_runs(instance) == []


def test_in_a_shared_database_only_a_code_server_judges_and_only_its_own_runs(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_a_process("dies").wait()
    monkeypatch.setattr(dead_runs, "SqliteRunStorage", type("Elsewhere", (), {}))
    assert end_dead_runs(instance) == []
    assert end_dead_runs(instance, code_location="bandscope") == [], "its server did not start the run"
    (run,) = instance.get_runs()
    instance.add_run_tags(run.run_id, launcher_tags())
    again = instance.create_run_for_job(
        nothing, status=dg.DagsterRunStatus.STARTING, tags=launcher_tags(), remote_job_origin=ORIGIN
    )
    monkeypatch.setattr(dead_runs, "HANDED_OVER_WITHIN_S", 0.0)
    assert end_dead_runs(instance) == [run.run_id], (
        "a code server judges a command's run that is executed again"
    )
    assert end_dead_runs(instance, code_location="elsewhere") == []
    instance.add_run_tags(again.run_id, {CODE_SERVER_TAG: '{"host": "localhost", "port": 1}'})
    assert end_dead_runs(instance, code_location="here") == [again.run_id]
