"""Runs that a code server starts as forks of a process that has imported all they need.

Dagster starts a new interpreter for each run, and importing Dagster, PyTorch and SciPy takes it longer than its work on
a few short songs. A fork is a process of its own too: it is named in the run's events, and can be killed.
"""

import multiprocessing
import multiprocessing.context
import os
import time
from pathlib import Path

from command_server import PRELOADED


def start_runs_fast(location: str, slow_while: str | None = None) -> None:
    """Make this process, the code server of ``location``, start its runs in this way.

    While the file ``slow_while`` exists, a run's process does nothing, as on a machine that is very busy.
    """
    if slow_while is not None:
        os.register_at_fork(after_in_child=lambda: wait_while(slow_while))
    multiprocessing.set_forkserver_preload([*PRELOADED, location])
    multiprocessing.context.SpawnContext.Process = multiprocessing.context.ForkServerProcess  # pyright: ignore


def wait_while(file: str) -> None:
    """Return when the file is gone."""
    while Path(file).exists():
        time.sleep(0.1)
