"""Processes that refresh catalogs turn after turn (``catalog_refresher.py``), and their end by a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bandscope_dagster.storage.objects.protocol import ObjectStore


def start(request: pytest.FixtureRequest, store: ObjectStore, first: int, last: int) -> subprocess.Popen[str]:
    """Start a process that changes the songs and refreshes the catalogs, turn after turn."""
    arguments = [store.url, str(first), str(last)]
    if store.url.startswith("s3://"):
        server = request.getfixturevalue("s3_server")
        arguments += [server.endpoint, server.access_key_id, server.secret_access_key, server.region]
    script = Path(__file__).with_name("catalog_refresher.py")
    return subprocess.Popen([sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True)


def run_until(process: subprocess.Popen[str], line: str) -> None:
    """Read the output of the process up to a line."""
    for printed in process.stdout:
        if printed.strip() == line:
            return
    raise AssertionError(f"the process ended before it printed {line!r}")


def kill_in_turn(process: subprocess.Popen[str], turn: int, after_s: float) -> int:
    """Kill the process ``after_s`` seconds after it began this turn's refresh; return the last turn that it began."""
    try:
        run_until(process, f"begin {turn}")
        time.sleep(after_s)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    # It does not wait for the reader of its output, so later turns may have begun.
    return max([turn, *(int(line.split()[1]) for line in rest.splitlines() if line.startswith("begin "))])
