"""Files that a command writes: each appears whole or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from bandscope_dagster.errors import BandscopeError


class CannotWrite(BandscopeError):
    """The file exists already, or its folder does not; the message says what to do."""


def require_new(path: Path, *, force: bool) -> None:
    """Raise CannotWrite if the file exists and may not be replaced, or its folder does not exist."""
    if path.exists() and not force:
        raise CannotWrite(f"{path} already exists; use another name, or --force to replace it")
    if not path.parent.is_dir():
        raise CannotWrite(f"the folder {path.parent} does not exist; create it first, or use another one")


@contextmanager
def new_file(path: Path, *, force: bool) -> Generator[BinaryIO]:
    """A file that becomes ``path`` at the end of the block, and is removed if the block raises.

    Raises:
        CannotWrite: a file appeared there meanwhile, and ``force`` is not given.
    """
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with unfinished.open("xb") as file:
            yield file
        if path.exists() and not force:
            raise CannotWrite(
                f"another program created {path} meanwhile; use another name, or --force to replace it"
            )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
