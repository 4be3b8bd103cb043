"""Where files arrive before they are known to be right: beside the model's files, and by one process at a time."""

import hashlib
import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model, ModelFile

LOCK: Final = ".lock"
LANDING: Final = ".incoming"


@dataclass(frozen=True, slots=True)
class Placed:
    """A file of a model that is in place now, and how it got there."""

    file: ModelFile
    how: Literal["already there", "downloaded", "copied", "converted"]


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


def require_space(model: Model, needed: int, folder: Path) -> None:
    """Raise ModelFileError unless the disk of ``folder`` has room for ``needed`` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelFileError(
            f"The disk of {folder} is too full for model {model.name}: {needed} bytes are needed, {free} are free. "
            f"Make room, or let BANDSCOPE_MODELS_FOLDER be a folder on a larger disk. Nothing was begun."
        )


@contextmanager
def open_regular(path: Path) -> Generator[BufferedReader]:
    """A regular file to read from; a pipe would block for ever, and a device may have no end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ModelFileError(f"{path} is no regular file; name a file or a folder.")
        yield stream


def copy_hashed(source: BufferedReader, arrived: Path) -> tuple[int, str]:
    """Copy a file, a block at a time; size and SHA-256 of what was written."""
    digest = hashlib.sha256()
    with arrived.open("wb") as target:
        while block := source.read(2**20):
            digest.update(block)
            target.write(block)
    return arrived.stat().st_size, digest.hexdigest()
