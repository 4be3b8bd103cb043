"""The code location: all that Dagster loads. Importing it changes nothing in the process.

No other module imports the assets.
"""

from typing import Final

import dagster as dg

from assets.analysis import analyze
from assets.catalog import catalogs
from assets.pages import song_pages
from assets.songs import songs
from assets.uploads import uploads
from bandscope_dagster.orchestration.executors import step_executor
from bandscope_dagster.orchestration.jobs import JOBS, process_songs, refresh_catalogs
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.result_webhook import Receiver
from bandscope_dagster.orchestration.sensors.alert_on_failure import Webhook, failure_sensor
from bandscope_dagster.orchestration.sensors.new_uploads import uploads_sensor
from bandscope_dagster.orchestration.sensors.refresh_catalogs import catalogs_sensor
from bandscope_dagster.orchestration.sensors.send_results import results_sensor
from bandscope_dagster.settings import load_settings

_SETTINGS: Final = load_settings()
_WEBHOOK: Final = _SETTINGS.alert_webhook
_RECEIVER: Final = Receiver.of(_SETTINGS)

defs = dg.Definitions(
    assets=[uploads, songs, analyze, catalogs, song_pages],
    jobs=JOBS,
    sensors=[
        uploads_sensor(process_songs.name, every_s=_SETTINGS.sensor_every_s),
        catalogs_sensor(refresh_catalogs.name),
        failure_sensor(Webhook(_WEBHOOK.get_secret_value()) if _WEBHOOK else None, _SETTINGS.ui_url),
        *([results_sensor(_RECEIVER, _SETTINGS)] if _RECEIVER else []),
    ],
    resources=resources(_SETTINGS),
    executor=step_executor(_SETTINGS),
)
