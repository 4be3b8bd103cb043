"""Processes that must not outlive the one that started them: found by a mark that they inherit in their environment.

Groups do not find all of them: PostgreSQL's and Dagster's servers put some of their children into other ones, and who
is killed leaves children behind that nobody knows. Run as a program, this waits until whoever started it is gone, in
whatever way, and ends what carries the mark.
"""

import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

import psutil

MARK: Final = "LOCAL_STACK_ID"
QUIET_S: Final = 1.0  # so long nothing may be found, for a process that is about to start has no mark yet


def find_marked(mark: str) -> list[psutil.Process]:
    """The processes whose environment has this mark."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # others' processes, and those that end meanwhile
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_marked(mark: str) -> list[str]:
    """Kill them all, and return the command lines of those that there were."""
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
    """For as long as a block of code runs: should this process be killed in it, what is marked is killed as well."""
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
