"""Dagster's home: the folder with `dagster.yaml` and the records of runs."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

DAGSTER_YAML: Final = """\
# Made by bandscope: runs and their history lie beside this file, in SQLite.
# What else can stand here: https://docs.dagster.io/deployment/oss/dagster-yaml
event_log_storage:
  # Dagster's own, with its connections kept open: several times as fast. Can be left out.
  module: bandscope_dagster.orchestration.event_log
  class: SqliteEventLog
  config:
    home: {env: DAGSTER_HOME}
run_queue:
  dequeue_interval_seconds: 1  # what a run waits for at most when nothing is before it; Dagster's default is 5
telemetry:
  enabled: false
"""


def dagster_home() -> Path:
    """``DAGSTER_HOME``, or ``~/.bandscope/dagster`` where it is unset, so that no run is ever forgotten.

    The folder is made, with a ``dagster.yaml`` unless it has one, and the variable is set for this process and its
    children.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or "~/.bandscope/dagster").expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    # "x": a file that is there, also one that another process makes now, is never overwritten.
    with suppress(FileExistsError), (home / "dagster.yaml").open("x", encoding="utf-8") as config:
        config.write(DAGSTER_YAML)
    os.environ["DAGSTER_HOME"] = str(home)
    return home
