"""Where files arrive before they are known to be right: beside the model's files, and by one process at a time."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock

LOCK: Final = ".lock"
LANDING: Final = ".incoming"


@contextmanager
def incoming(folder: Path) -> Generator[Path]:
    """An empty folder within ``folder``, a model's, so that what is in it can be renamed into place.

    A second process waits until the first has left. What a killed one left is removed: its lock ended with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    landing = folder / LANDING
    with FileLock(folder / LOCK):
        shutil.rmtree(landing, ignore_errors=True)
        landing.mkdir()
        try:
            yield landing
        finally:
            shutil.rmtree(landing, ignore_errors=True)
