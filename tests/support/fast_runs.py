"""Daemons, webservers, code servers and runs as forks of a process that has imported all they need.

Dagster starts a new interpreter for each of them, and importing Dagster, PyTorch and SciPy takes it longer than its
work on a few short songs. Here a daemon or a webserver is a fork of the server of commands (``command_server``), its
code server is a fork of it, and the process that forks the runs is one of the code server. Each is a process of its
own: it is named in the run's events, and can be killed. All of them are in one process group.
"""

import importlib
import multiprocessing
import multiprocessing.context
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path

# The daemon's loops usually sleep for 5 s (sensors) and 30 s (backfills); in tests they sleep for 1 s.
DAEMON_LOOP_S = 1
NEVER_S = 10**6


def daemon() -> None:
    """Become a Dagster daemon for the code location that the command line names."""
    workspace = _start_code_server(sys.argv.pop())
    from dagster._daemon import controller, sensor
    from dagster._daemon.cli import main

    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = sensor.MIN_INTERVAL_LOOP_TIME = DAEMON_LOOP_S  # type: ignore[misc]
    controller.RELOAD_WORKSPACE_INTERVAL = NEVER_S  # type: ignore[misc]
    sys.argv = ["dagster-daemon", "run", "-w", workspace]
    main()


def webserver() -> None:
    """Become a Dagster webserver for the code location that comes last on the command line; the rest are options."""
    workspace = _start_code_server(sys.argv.pop())
    from dagster_webserver.cli import main

    sys.argv = ["dagster-webserver", *sys.argv[1:], "-w", workspace]
    main()


def start_runs_fast() -> None:
    """Make this process, which imports a code location, start its runs as forks.

    While the file that the variable ``TEST_SILENT_WHILE`` names exists, a run's process does nothing, as on a machine
    that is very busy.
    """
    multiprocessing.context.SpawnContext.Process = multiprocessing.context.ForkServerProcess  # pyright: ignore


def wait_while(file: str) -> None:
    """Return when the file is gone."""
    while Path(file).exists():
        time.sleep(0.1)


def _start_code_server(location: str) -> str:
    """Fork a code server, and wait until it answers; returns the file that tells other servers where it is."""
    folder = Path(tempfile.mkdtemp(prefix="code-server-"))
    address = folder / "socket"
    pid = os.fork()
    if pid == 0:
        importlib.import_module(location)
        if issubclass(
            multiprocessing.context.SpawnContext.Process, multiprocessing.context.ForkServerProcess
        ):
            _start_forkserver()
        from dagster._cli import main

        sys.argv = ["dagster", "api", "grpc", "--socket", str(address), "-m", location]
        main()
        os._exit(0)
    workspace = folder / "workspace.yaml"
    workspace.write_text(f"load_from: [grpc_server: {{socket: {address}, location_name: {location}}}]")
    while not address.exists():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), f"no code server for {location}"
        time.sleep(0.05)
    return str(workspace)


def _start_forkserver() -> None:
    """Start the process that forks the runs: by a fork of this one, and not as a new interpreter."""
    silent_while = os.environ.get("TEST_SILENT_WHILE")

    def fork(path: str, arguments: Sequence[str], files: Sequence[int]) -> int:
        pid = os.fork()
        if pid == 0:
            for file in {int(name) for name in os.listdir("/dev/fd")} - {0, 1, 2, *files}:
                with suppress(OSError):  # the one of the listing
                    os.close(file)
            if silent_while:
                os.register_at_fork(after_in_child=lambda: wait_while(silent_while))
            with suppress(SystemExit):
                exec(arguments[-1])  # the program that a new interpreter would get
            os._exit(0)
        return pid

    resource_tracker.ensure_running()
    usual, util.spawnv_passfds = util.spawnv_passfds, fork
    try:
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = usual
