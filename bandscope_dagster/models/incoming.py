"""A download folder for files that are not verified yet: inside the model's folder, for one process at a time."""

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
DOWNLOAD_FOLDER: Final = ".incoming"


@dataclass(frozen=True, slots=True)
class Placed:
    """A model's file that is in place now, and how it got there."""

    file: ModelFile
    how: Literal["already there", "downloaded", "downloaded and converted", "copied", "converted"]


@contextmanager
def incoming(folder: Path) -> Generator[Path]:
    """Yield an empty folder inside ``folder``, a model's, so that its files can be renamed into place.

    A second process waits until the first is done. The lock of a killed process ends with it, and the next process
    removes its files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    download_folder = folder / DOWNLOAD_FOLDER
    with FileLock(folder / LOCK):
        shutil.rmtree(download_folder, ignore_errors=True)
        download_folder.mkdir()
        try:
            yield download_folder
        finally:
            shutil.rmtree(download_folder, ignore_errors=True)


def require_space(model: Model, needed: int, folder: Path) -> None:
    """Raise ModelFileError unless the disk of ``folder`` has ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelFileError(
            f"The disk of {folder} is too full for model {model.name}: {needed} bytes are needed, {free} are free. "
            f"Free some space, or set BANDSCOPE_MODELS_FOLDER to a folder on a larger disk. Nothing was changed."
        )


@contextmanager
def open_regular(path: Path) -> Generator[BufferedReader]:
    """Open a regular file to read; a pipe would block forever, and a device may have no end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ModelFileError(f"{path} is not a regular file; give a file or a folder.")
        yield stream


def copy_hashed(source: BufferedReader, arrived: Path) -> tuple[int, str]:
    """Copy a file block by block; returns the size and SHA-256 of the copy."""
    digest = hashlib.sha256()
    with arrived.open("wb") as target:
        while block := source.read(2**20):
            digest.update(block)
            target.write(block)
    return arrived.stat().st_size, digest.hexdigest()
