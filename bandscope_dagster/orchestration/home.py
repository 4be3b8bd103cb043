"""Dagster's home: the folder with ``dagster.yaml`` and the records of runs, and its lock."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import BandscopeError

DAGSTER_YAML: Final = """\
# Written by bandscope: runs and their history are beside this file, in SQLite.
# All options: https://docs.dagster.io/deployment/oss/dagster-yaml
event_log_storage:
  # Dagster's own with its connections kept open: several times as fast. Optional: docs/event-log.md
  module: bandscope_dagster.orchestration.event_log
  class: SqliteEventLog
  config:
    home: {env: DAGSTER_HOME}
concurrency:
  runs:
    max_concurrent_runs: 4
    # Runs over songs (ranges, single songs) leave one place free, so that the catalogs never wait for them.
    tag_concurrency_limits:
      - {key: dagster/asset_partition_range_start, limit: 2}
      - {key: dagster/partition, limit: 1}
sensors:
  # A tick that requests many songs does not delay the catalogs.
  use_threads: true
  num_workers: 4
run_queue:
  dequeue_interval_seconds: 1  # how long a run waits at most if no other is before it; Dagster's default is 5
telemetry:
  enabled: false
"""

LOCK_NAME: Final = "bandscope-run.lock"


class HomeInUse(BandscopeError):
    """Another ``bandscope run`` uses this home; the message names the home and says what to do."""


def home_path() -> Path:
    """``DAGSTER_HOME``, or ``~/.bandscope/dagster`` if it is unset; the folder may not exist."""
    return Path(os.environ.get("DAGSTER_HOME") or "~/.bandscope/dagster").expanduser().absolute()


def dagster_home() -> Path:
    """``DAGSTER_HOME``, or ``~/.bandscope/dagster`` if it is unset, so that records of runs are never temporary.

    Creates the folder, writes a ``dagster.yaml`` unless there is one, and sets the variable for this process and its
    children.
    """
    home = home_path()
    home.mkdir(parents=True, exist_ok=True)
    # "x" never overwrites an existing file, also if another process creates it at the same time.
    with suppress(FileExistsError), (home / "dagster.yaml").open("x", encoding="utf-8") as config:
        config.write(DAGSTER_YAML)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


@contextmanager
def only_one(home: Path) -> Generator[None]:
    """Hold the home's lock, so that two commands never work on the same songs. It ends with the process at the latest.

    Raises:
        HomeInUse: another ``bandscope run`` holds it.
    """
    with (home / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeInUse(f"another `bandscope run` uses {home}; wait for it, or stop it") from None
        yield


def is_in_use(home: Path) -> bool:
    """True if a ``bandscope run`` on this machine uses ``home``; a run on another machine is not seen."""
    path = home / LOCK_NAME
    if not path.exists():
        return False
    with path.open() as lock:
        try:
            # A shared lock, so that two processes that only ask never take each other for a run.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
