"""One ``bandscope run`` at a time on a Dagster home, known to every process of that machine."""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import BandscopeError

LOCK_NAME: Final = "bandscope-run.lock"


class HomeInUse(BandscopeError):
    """A ``bandscope run`` is at work on this home; the message says which home and what to do."""


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
            raise HomeInUse(
                f"another `bandscope run` is at work on {home}; wait for it, or stop it"
            ) from None
        yield


def is_in_use(home: Path) -> bool:
    """Whether a ``bandscope run`` is at work on ``home``; never true on another machine than that of the command."""
    path = home / LOCK_NAME
    if not path.exists():
        return False
    with path.open() as lock:
        try:
            # Shared, so that two who only ask never mistake each other for a run.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
