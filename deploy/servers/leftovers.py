"""Ends processes that must not outlive their starter: found by a mark that they inherit in their environment.

Process groups do not contain all of them: PostgreSQL's and Dagster's servers move some of their children into other
groups, and a killed process leaves children behind. As a program, this module waits until its starter has ended in any
way, and then kills all processes with the mark.
"""

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

import psutil

MARK: Final = "LOCAL_STACK_ID"
QUIET_S: Final = 1.0  # how long none may be found: a process that is just starting has no mark yet


def find_marked(mark: str) -> list[psutil.Process]:
    """The processes with this mark in their environment."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # processes of other users, and processes that end meanwhile
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_marked(mark: str) -> list[str]:
    """Kill all processes with this mark; returns their command lines."""
    killed: list[str] = []
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_S:
        for process in find_marked(mark):
            with suppress(psutil.Error):
                killed.append(f"{process.pid}: {' '.join(process.cmdline())}")
                process.kill()
            quiet_since = time.monotonic()
        time.sleep(0.1)
    return killed


@contextmanager
def guarded(mark: str) -> Generator[None]:
    """Kill all marked processes if this process is killed while a block of code runs."""
    command = [sys.executable, __file__, mark]
    guardian = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        guardian.kill()
        guardian.wait()


if __name__ == "__main__":
    sys.stdin.read()
    kill_marked(sys.argv[1])
