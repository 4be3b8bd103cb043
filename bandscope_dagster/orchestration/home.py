"""Dagster's home: the folder with ``dagster.yaml`` and the records of runs, and its lock."""

import fcntl
import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bandscope_dagster.errors import BandscopeError

if TYPE_CHECKING:
    import dagster as dg

DAGSTER_YAML: Final = """\
# Written by bandscope: runs and their history are beside this file, in SQLite. A later version of bandscope replaces
# this file, unless you have edited it.
# All options: https://docs.dagster.io/deployment/oss/dagster-yaml
event_log_storage:
  # Dagster's own with its connections kept open: several times as fast. Optional: docs/event-log.md
  module: bandscope_dagster.orchestration.event_log
  class: SqliteEventLog
  config:
    home: {env: DAGSTER_HOME}
run_launcher:
  # Dagster's own, which gives up a run whose process takes more than a minute to start, but this waits.
  module: bandscope_dagster.orchestration.run_launcher
  class: PatientRunLauncher
concurrency:
  pools:
    # Runs with a model at once: a batch, and beside it songs that were uploaded later. For a model that fills the GPU
    # set 1, for N GPUs N, in the UI: Deployment, Concurrency.
    default_limit: 2
    granularity: run
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
run_retries:
  # A run whose process died is started again, and keeps finished songs. Failed songs wait for people.
  enabled: true
  max_retries: 2
  retry_on_asset_or_op_failure: false
telemetry:
  enabled: false
nux:
  enabled: false  # the newsletter
"""

EARLIER: Final = frozenset(
    {
        "c170a8e381c9911b0d77a07cb1cf0c0e1fc3f091a9fc909a405dcecbc278342c",
        "118eb27ba6ac62baaebe1fd24f63d58399a3d556798930bafd9ffb4a22205fd3",
        "c38d631660919989176d12319ef288604f19c4e61a14dbb1e347968dd1b27eba",
        "bb1cb11929c573be3388c8aa72cdc47486e259fb403c8c3ac08b2dac91875e15",
        "c9ae1d9e26394ca578be9e31d7f6897cb6b547f8e6a389a683162e7be437a798",
    }
)
"""SHA-256 of each earlier ``DAGSTER_YAML``, the oldest first."""

LOCK_NAME: Final = "bandscope-run.lock"
RECORDS_LOCK_NAME: Final = "bandscope-records.lock"


class HomeInUse(BandscopeError):
    """Another ``bandscope run`` uses this home; the message names the home and says what to do."""


def home_path() -> Path:
    """``DAGSTER_HOME``, or ``~/.bandscope/dagster`` if it is unset; the folder may not exist."""
    return Path(os.environ.get("DAGSTER_HOME") or "~/.bandscope/dagster").expanduser().absolute()


def dagster_home() -> Path:
    """``DAGSTER_HOME``, or ``~/.bandscope/dagster`` if it is unset, so that records of runs are never temporary.

    Every command that touches the home calls this. It creates the folder, writes a ``dagster.yaml`` unless there is one
    that someone wrote or edited, and sets the variable for this process and its children.
    """
    home = home_path()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists() or hashlib.sha256(config.read_bytes()).hexdigest() in EARLIER:
        # Two processes that do this at the same time write the same.
        new = config.with_name(f"{config.name}.{os.getpid()}")
        new.write_text(DAGSTER_YAML, encoding="utf-8")
        new.replace(config)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def has_home() -> bool:
    """Make the home, for a command that also works without; False if this user may not write it."""
    try:
        dagster_home()
    except OSError:
        return False
    return True


@contextmanager
def open_records() -> "Generator[dg.DagsterInstance]":
    """Dagster's records of the home, for a command: all of them open the records here.

    The databases of a new home are created by one process at a time: of two at once, Dagster 1.13 writes the version of
    their schema twice, and never opens them again ("more than one head").
    """
    import dagster as dg

    _make_records(dagster_home())
    with dg.DagsterInstance.get() as instance:
        yield instance


def _make_records(home: Path) -> None:
    import dagster as dg

    try:
        lock = (home / RECORDS_LOCK_NAME).open("a")
    except OSError:  # a home that this user may not write: that of a deployment, with a database server
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if lock.tell() == 0:
            with dg.DagsterInstance.get() as instance:
                instance.get_runs(limit=1)
                instance.all_instigator_state()
                instance.all_asset_keys()
            lock.write("The databases of this home are made.\n")


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
