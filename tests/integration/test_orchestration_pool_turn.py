"""Runs of ``bandscope run`` in a pool that limits runs: they count the daemon's runs, which the queue started."""

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from daemon import wait_for
from instances import new_instance
from platforms import ASSETS, Platform, local_settings, song_bytes

from bandscope_dagster.orchestration import pool_turn, shared_songs
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import LAUNCHER, LAUNCHER_TAG, WAITS_FOR_TAG

TABLES = ["songs", "decoded_waveforms"]


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """One song, in a home with room for one run in the pool."""
    monkeypatch.setattr(pool_turn, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(shared_songs, "LOOK_EVERY_S", 0.1)
    with new_instance() as instance:
        instance.event_log_storage.set_concurrency_slots(pool_turn.MODELS_POOL, 1)
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({"song.wav": song_bytes(1, 0.6)})
        yield platform


@pytest.mark.parametrize("waits_for_ours", [False, True], ids=["it-ends", "it-waits-for-ours"])
def test_a_run_of_the_command_waits_while_the_pool_is_full_and_no_other_run_does(
    platform: Platform, *, waits_for_ours: bool
) -> None:
    assert pool_turn.runs_at_once(platform.instance, pool_turn.MODELS_POOL) == 1
    definitions = dg.Definitions(
        assets=ASSETS, jobs=[dg.define_asset_job("job", TABLES)], resources=resources(platform.settings)
    )
    job = definitions.resolve_job_def("job")
    (song,) = platform.songs
    daemons = platform.instance.create_run_for_job(job, tags={"dagster/partition": song})
    started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job.name)
    platform.instance.report_dagster_event(started, daemons.run_id)
    assert platform.materialize(TABLES).success, "the queue keeps the limit for its own runs"

    results: list[dg.ExecuteInProcessResult] = []
    tags = {LAUNCHER_TAG: LAUNCHER}
    ours = threading.Thread(target=lambda: results.append(platform.materialize(TABLES, tags=tags)))
    ours.start()

    def told() -> bool:
        (run, *_) = platform.instance.get_runs()
        said = [entry.user_message for entry in platform.instance.all_logs(run.run_id)]
        return "The pool gpu is full: 1 runs of 1. This run waits for a place." in said

    wait_for("our run waits", told)
    assert not results
    if waits_for_ours:  # over the same songs: it holds the place and computes nothing
        platform.instance.add_run_tags(daemons.run_id, {WAITS_FOR_TAG: "our run"})
    else:
        platform.instance.report_run_canceled(daemons)
    ours.join(timeout=300)
    assert results[0].success


def test_a_run_that_has_waited_for_songs_of_another_waits_for_a_place_again(platform: Platform) -> None:
    (song,) = platform.songs
    assert platform.materialize(["songs"]).success
    definitions = dg.Definitions(
        assets=ASSETS,
        jobs=[dg.define_asset_job("job", ["decoded_waveforms"])],
        resources=resources(platform.settings),
    )
    job = definitions.resolve_job_def("job")

    def started() -> dg.DagsterRun:
        run = platform.instance.create_run_for_job(job, tags={"dagster/partition": song})
        platform.instance.report_dagster_event(
            dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job.name), run.run_id
        )
        return run

    first = started()
    begun = dg.DagsterEvent(dg.DagsterEventType.STEP_START.value, job.name, step_key="analyze")
    platform.instance.report_dagster_event(begun, first.run_id)
    results: list[dg.ExecuteInProcessResult] = []
    tags = {LAUNCHER_TAG: LAUNCHER}
    ours = threading.Thread(
        target=lambda: results.append(platform.materialize(["decoded_waveforms"], tags=tags))
    )
    ours.start()

    def said(words: str) -> bool:
        runs = [run for run in platform.instance.get_runs() if LAUNCHER_TAG in run.tags]
        logs = [entry for run in runs for entry in platform.instance.all_logs(run.run_id)]
        return any(words in entry.user_message for entry in logs)

    wait_for("our run waits for the song", lambda: said("This run waits for it"))
    second = started()  # in the pool's one place, which our run has given up
    platform.instance.report_run_canceled(first)
    wait_for("our run waits for a place", lambda: said("This run waits for a place"))
    assert not results
    platform.instance.report_run_canceled(second)
    ours.join(timeout=300)
    assert results[0].success
