"""SIGKILL at random points of runs, refreshes and the sensor: after `bandscope retry`, nothing is missing or wrong.

`pytest --long -s tests/integration/test_kills.py` kills 30 times and prints each kill.
"""

import base64
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import psutil
import pytest
from command_processes import finish
from command_server import start_command
from daemon import Home, end_group, open_instance, ticks_of, wait_for
from dagster._core.execution.backfill import BulkActionStatus
from long_forms import quick_or_long
from platforms import PER_SONG, WHEN, Platform, calm_platform, local_settings, song_bytes
from polars.testing import assert_frame_equal
from recording_server import RecordingServer, recording_server
from same_tables import assert_same_tables

from bandscope_dagster.orchestration.finished_songs import FinishedSongs
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.jobs import CATALOGS
from bandscope_dagster.orchestration.result_cursor import Cursor
from bandscope_dagster.orchestration.result_webhook import STATE_KEY

KILLS = quick_or_long(3, long=30)
SONGS_PER_KILL = 2
SEED = 7
MOMENTS = ("a tick", "process_songs", "refresh_catalogs")
PATIENCE_S = 60.0  # for a moment to come; a refresh that is not due never comes
SETTLED_WITHIN_S = 900.0


def doing(instance: dg.DagsterInstance, job: str) -> list[dg.RunRecord]:
    """The runs of a job that have the status STARTED."""
    started = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.STARTED])
    return list(instance.get_run_records(started))


def process_of(instance: dg.DagsterInstance, run: dg.RunRecord) -> psutil.Process | None:
    """The process of a run; None if it has exited."""
    (began,) = instance.all_logs(run.dagster_run.run_id, of_type=dg.DagsterEventType.RUN_START)
    try:
        return psutil.Process(began.dagster_event.pid) if began.dagster_event else None
    except psutil.NoSuchProcess:
        return None


def is_due(instance: dg.DagsterInstance, moment: str) -> Callable[[], bool]:
    """Return a function that is True once a moment has come after this call."""
    ticks, since = len(ticks_of(instance)), time.time()
    if moment == "a tick":
        return lambda: len(ticks_of(instance)) > ticks
    return lambda: any((run.start_time or 0.0) > since for run in doing(instance, moment))


def has_settled(platform: Platform, uploads: int) -> bool:
    """True if every upload is registered and no run or backfill is in progress."""
    return (
        len(platform.songs) == uploads
        and all(run.is_finished for run in platform.instance.get_runs())
        and not platform.instance.get_backfills(status=BulkActionStatus.REQUESTED)
    )


def kill_one(home: Home, instance: dg.DagsterInstance, moment: str, fate: random.Random) -> str:
    """Start a daemon, wait for the moment and kill; return a description of the kill."""
    daemon = home.start_daemon()
    try:
        comes = is_due(instance, moment)
        until = time.monotonic() + PATIENCE_S
        while not comes() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(fate.uniform(0, 3.0 if moment == "process_songs" else 1.0))
        going = [run for job in MOMENTS[1:] for run in doing(instance, job)]
        hit = [run for run in going if process_of(instance, run)]
        if hit and fate.random() < 0.3:  # one process only, like the kernel's out-of-memory killer
            victim = process_of(instance, fate.choice(hit))
            if victim is not None:
                victim.kill()
                time.sleep(fate.uniform(0, 3.0))
                return f"one process, in {moment}"
        names = sorted({run.dagster_run.job_name for run in hit}) or ["the sensor"]
        return f"everything, in {' and '.join(names)}"
    finally:
        end_group(daemon)


@pytest.fixture
def receiver() -> Iterator[RecordingServer]:
    """A receiver of results, which the daemon posts."""
    with recording_server(lambda _: (200, b"")) as server:
        yield server


def results_not_posted(receiver: RecordingServer, instance: dg.DagsterInstance) -> set[tuple[str, str]]:
    """The results in the event log, as (run, song), that the receiver has not got."""
    bodies = [json.loads(request.body) for request in receiver.requests]
    posted = {(body["run_id"], body["song_id"]) for body in bodies}
    return {(song.run_id, song.song_id) for song in FinishedSongs(instance, Cursor()).new()} - posted


def test_after_kills_at_random_points_a_retry_ends_with_the_tables_of_a_calm_run(
    tmp_path: Path, receiver: RecordingServer
) -> None:
    home = Home.make(
        tmp_path / "home",
        tmp_path / "store",
        yaml=DAGSTER_YAML,
        songs_per_run=4,
        variables={"TEST_SENSORS": "new_uploads catalogs"},
        result_webhook=receiver.url,
        result_webhook_secret="whsec_" + base64.b64encode(bytes(32)).decode(),
    )
    killed = Platform(local_settings(tmp_path / "store"), open_instance(home.folder))
    killed.instance.daemon_cursor_storage.set_cursor_values({STATE_KEY: json.dumps({"cursor": "0.0"})})
    fate, hits = random.Random(SEED), Counter[str]()
    for number in range(KILLS):
        for song in range(number * SONGS_PER_KILL, (number + 1) * SONGS_PER_KILL):
            with killed.store.create(f"uploads/song {song:03}.wav") as pending:
                pending.write(song_bytes(song, seconds=2.0))
        hit = kill_one(home, killed.instance, MOMENTS[number % len(MOMENTS)], fate)
        hits[hit] += 1
        print(f"kill {number + 1}: {hit}", flush=True)
    uploads = KILLS * SONGS_PER_KILL

    with home.daemon():
        settled = lambda: has_settled(killed, uploads)  # noqa: E731
        wait_for("Dagster has noticed every kill", settled, SETTLED_WITHIN_S, every_s=1)
        print(finish(start_command(["retry"], os.environ | home.environment)), dict(hits))
        wait_for("the retry has ended", settled, SETTLED_WITHIN_S, every_s=1)
        time.sleep(6)  # the catalogs' sensor looks again after 5 s
        wait_for("the catalogs are refreshed", settled, SETTLED_WITHIN_S, every_s=1)
        wait_for("each result is posted", lambda: not results_not_posted(receiver, killed.instance))
    assert receiver.requests

    (tmp_path / "calm").mkdir()
    # copytree keeps the files' times, and so the song ids.
    shutil.copytree(tmp_path / "store" / "uploads", tmp_path / "calm" / "uploads")
    with calm_platform(tmp_path / "calm") as calm:
        assert_same_tables(killed, calm)
    for asset in PER_SONG:
        assert Counter(killed.status(asset).values()) == {"MATERIALIZED": uploads}
    for catalog in CATALOGS:
        ours, theirs = (
            pl.read_parquet(store / catalog / f"{catalog}.parquet").drop(*WHEN, strict=False)
            for store in (tmp_path / "store", tmp_path / "calm")
        )
        assert_frame_equal(ours, theirs, check_exact=False, rel_tol=1e-3, abs_tol=1e-3)
    strays = {
        path.relative_to(tmp_path / "store").parts[0]
        for path in (tmp_path / "store").rglob("*")
        if path.is_file() and path.suffix != ".parquet"
    }
    assert strays <= {"uploads", ".pending", "delta"}  # the logs of the Delta tables are JSON
