"""Lost songs: with a real daemon, a slow run is left alone, and the songs of a killed one are computed by another."""

from pathlib import Path

import dagster as dg
import psutil
import pytest
from daemon import Home, end_group, open_instance, wait_for
from platforms import Platform, local_settings, song_bytes
from postgres import run_postgres

from bandscope_dagster.orchestration import dead_runs
from bandscope_dagster.orchestration.dead_runs import GONE, end_dead_runs
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.run_tags import ATTEMPT_TAG, RESUMES_TAG

DEPLOYED = (Path(__file__).parents[2] / "deploy" / "dagster.yaml").read_text()


def start(folder: Path, yaml: str = DAGSTER_YAML, variables: dict[str, str] | None = None) -> Home:
    """A home that validates the two songs of its store in one run each, in processes that are slow to start."""
    (folder / "slow").touch()
    sensors = {
        "TEST_SENSORS": "new_uploads catalogs",
        "TEST_UPLOADS_JOB": "validate_songs",
        "TEST_SLOW_WHILE": str(folder / "slow"),
    }
    uploads = folder / "store" / "uploads"
    uploads.mkdir(parents=True)
    for number in range(2):
        (uploads / f"song {number}.wav").write_bytes(song_bytes(number, 0.6))
    return Home.make(
        folder / "home",
        folder / "store",
        yaml=yaml,
        variables=sensors | (variables or {}),
        songs_per_run=2,
    )


def begun(instance: dg.DagsterInstance) -> tuple[dg.DagsterRun, int] | None:
    """The run over songs that is "starting", and its process."""
    for run in instance.get_runs(
        dg.RunsFilter(job_name="validate_songs", statuses=[dg.DagsterRunStatus.STARTING])
    ):
        named = dead_runs._named_process(instance, run.run_id)
        return named and (run, named[0])
    return None


def all_done(instance: dg.DagsterInstance, folder: Path) -> bool:
    platform = Platform(local_settings(folder / "store"), instance)
    return sorted(platform.status("songs").values()) == ["MATERIALIZED"] * 2


def test_a_slow_run_lives_and_the_songs_of_a_killed_one_are_computed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_runs, "HANDED_OVER_WITHIN_S", 0.0)
    home = start(tmp_path)
    instance = open_instance(home.folder)
    daemon = home.start_daemon()
    try:
        run, pid = wait_for("the run has a process", lambda: begun(instance))
        assert end_dead_runs(instance) == [], "it has a process, which is slow"
        monkeypatch.setattr(dead_runs, "_named_process", lambda instance, run_id: None)
        assert end_dead_runs(instance) == [], "the code server knows of it, even without an event"
        monkeypatch.undo()
    finally:
        end_group(daemon)
    wait_for("the process is gone", lambda: not psutil.pid_exists(pid))
    (tmp_path / "slow").unlink()
    with home.daemon():
        wait_for("both songs are done", lambda: all_done(instance, tmp_path))
    dead = instance.get_run_by_id(run.run_id)
    assert dead is not None and dead.status == dg.DagsterRunStatus.FAILURE
    (failure,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert GONE in failure.message and "by the sensor new_uploads if it is on" in failure.message
    (second,) = instance.get_runs(dg.RunsFilter(tags={RESUMES_TAG: run.run_id}))
    assert second.tags[ATTEMPT_TAG] == "2"


def test_a_run_whose_process_is_silent_for_longer_than_the_daemon_waits_goes_on(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.touch()
    waits = {"TEST_SILENT_WHILE": str(silent), "DAGSTER_GRPC_TIMEOUT_SECONDS": "10"}  # Dagster's is 60 s
    home = start(tmp_path, variables=waits | {"TEST_SLOW_WHILE": ""})
    instance = open_instance(home.folder)

    def slow() -> list[str]:
        return [
            run.run_id
            for run in instance.get_runs(dg.RunsFilter(job_name="validate_songs"))
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
            if "is slow to start" in entry.message
        ]

    with home.daemon():
        (run_id,) = wait_for("the daemon has waited in vain", slow)
        run = instance.get_run_by_id(run_id)
        assert run is not None and run.status == dg.DagsterRunStatus.STARTING
        silent.unlink()
        wait_for("both songs are done", lambda: all_done(instance, tmp_path))
        wait_for("the run has ended", lambda: instance.get_run_by_id(run_id).is_finished)
    (record,) = instance.get_run_records(dg.RunsFilter(job_name="validate_songs"))
    assert record.dagster_run.status == dg.DagsterRunStatus.SUCCESS


def test_where_a_database_is_shared_the_code_server_that_comes_back_ends_its_dead_runs(
    tmp_path: Path,
) -> None:
    with run_postgres() as server, pytest.MonkeyPatch.context() as patch:
        variables = server.database().environment()
        for name, value in variables.items():
            patch.setenv(name, value)
        home = start(tmp_path, DEPLOYED, variables)
        instance = open_instance(home.folder)
        with home.daemon():
            run, _ = wait_for("the run has a process", lambda: begun(instance))
        (tmp_path / "slow").unlink()
        with home.daemon():
            wait_for("both songs are done", lambda: all_done(instance, tmp_path))
        dead = instance.get_run_by_id(run.run_id)
        assert dead is not None and dead.status == dg.DagsterRunStatus.FAILURE
