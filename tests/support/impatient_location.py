"""The code location for tests with a real daemon: the product's parts, with sensors that run more often."""

import multiprocessing
import os

import dagster as dg
from fast_runs import start_runs_fast, wait_while
from platforms import ASSETS

from bandscope_dagster.orchestration import dead_runs, lost_songs
from bandscope_dagster.orchestration.executors import step_executor
from bandscope_dagster.orchestration.jobs import JOBS
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.result_webhook import Receiver
from bandscope_dagster.orchestration.sensors.new_uploads import SONGS_PER_TICK, uploads_sensor
from bandscope_dagster.orchestration.sensors.refresh_catalogs import catalogs_sensor
from bandscope_dagster.orchestration.sensors.send_results import results_sensor
from bandscope_dagster.settings import load_settings

CATALOGS_EVERY_S = 5
lost_songs.FIRST_WAIT_S = 1.0  # type: ignore[misc]
dead_runs.HANDED_OVER_WITHIN_S = 10.0  # type: ignore[misc]

# While this file exists, the processes of runs are slow to start; the code server is not.
if slow := os.environ.get("TEST_SLOW_WHILE"):
    if multiprocessing.parent_process():
        wait_while(slow)
else:
    start_runs_fast()

# A test's home chooses the sensors that are on, the job that new uploads start, and the songs per tick.
on = os.environ.get("TEST_SENSORS", "").split()
uploads_job = os.environ.get("TEST_UPLOADS_JOB", "process_songs")
songs_per_tick = int(os.environ.get("TEST_SONGS_PER_TICK", SONGS_PER_TICK))
uploads = uploads_sensor(uploads_job, every_s=1, songs_per_tick=songs_per_tick, turned_on="new_uploads" in on)
catalogs = [catalogs_sensor("refresh_catalogs", every_s=CATALOGS_EVERY_S)] if "catalogs" in on else []

settings = load_settings()
receiver = Receiver.of(settings)
results = [results_sensor(receiver, settings)] if receiver else []
defs = dg.Definitions(
    assets=ASSETS,
    jobs=JOBS,
    sensors=[uploads, *catalogs, *results],
    resources=resources(settings),
    executor=step_executor(settings),
)
