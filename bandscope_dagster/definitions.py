"""The code location: everything that Dagster is shown. The only module that imports the assets."""

import dagster as dg

from assets.analysis import analyze
from assets.catalog import instrument_catalog, song_catalog, song_errors
from assets.songs import songs
from bandscope_dagster.resources import resources
from bandscope_dagster.settings import load_settings

defs = dg.Definitions(
    assets=[songs, analyze, song_catalog, instrument_catalog, song_errors],
    resources=resources(load_settings()),
    executor=dg.in_process_executor,
)
