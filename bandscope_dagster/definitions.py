"""The code location: everything that Dagster is shown. The only module that imports the assets."""

import os
from typing import Final

import dagster as dg

from assets.analysis import analyze
from assets.catalog import catalogs
from assets.pages import song_pages
from assets.songs import songs
from bandscope_dagster.allocator import share_freed_memory, without_thread_caches
from bandscope_dagster.orchestration.executors import step_executor
from bandscope_dagster.orchestration.jobs import JOBS, process_songs, refresh_catalogs
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.sensors.alert_on_failure import Webhook, failure_sensor
from bandscope_dagster.orchestration.sensors.new_uploads import uploads_sensor
from bandscope_dagster.orchestration.sensors.refresh_catalogs import catalogs_sensor
from bandscope_dagster.settings import load_settings

share_freed_memory()  # a process that runs steps loads this before it starts the threads that work on songs
os.environ.update(without_thread_caches())  # for the processes of runs, which Dagster starts from this one

_SETTINGS: Final = load_settings()
_WEBHOOK: Final = _SETTINGS.alert_webhook

defs = dg.Definitions(
    assets=[songs, analyze, catalogs, song_pages],
    jobs=JOBS,
    sensors=[
        uploads_sensor(process_songs.name),
        catalogs_sensor(refresh_catalogs.name),
        failure_sensor(Webhook(_WEBHOOK.get_secret_value()) if _WEBHOOK else None, _SETTINGS.ui_url),
    ],
    resources=resources(_SETTINGS),
    executor=step_executor(_SETTINGS),
)
