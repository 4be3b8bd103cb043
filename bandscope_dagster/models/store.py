"""Gives out the bytes of model files, and only when their full SHA-256 is the one in the inventory."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model, ModelFile, find_model, load_inventory

EMBEDDED = Path(__file__).parent  # the files that are part of the package lie beside this module
MEND_EMBEDDED = "pip install --force-reinstall bandscope"

FileState = Literal["present", "missing", "wrong"]


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What was found where a file of a model should be."""

    model: Model
    file: ModelFile
    path: Path
    state: FileState
    found_bytes: int | None = None
    found_sha256: str | None = None

    def __str__(self) -> str:
        name = f"{self.file.name} of model {self.model.name}"
        expected = f"{self.file.bytes} bytes with SHA-256 {self.file.sha256}"
        if self.state == "present":
            return f"{name} is present: {expected}."
        if self.state == "missing":
            return f"{name} is missing: expected {expected} at {self.path}. Mend it with `{MEND_EMBEDDED}`."
        return (
            f"{name} is not the file in the inventory: expected {expected}, found {self.found_bytes} bytes "
            f"with SHA-256 {self.found_sha256} at {self.path}. Mend it with `{MEND_EMBEDDED}`."
        )


def read_verified(model_name: str, folder: Path = EMBEDDED) -> dict[str, bytes]:
    """The bytes of every file of a model, by file name.

    What is hashed is the memory that is returned, so that nothing can change between the check and the load.

    Raises:
        ModelFileError: a file is missing or is not the one in the inventory. The message names the file, the
            expected and the found digest, and the command that mends it.
    """
    model = find_model(model_name)
    contents: dict[str, bytes] = {}
    for file in model.files:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.bytes:
            raise ModelFileError(str(_inspect(model, file, folder)))
        content = path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != file.sha256:
            raise ModelFileError(str(FileStatus(model, file, path, "wrong", len(content), found)))
        contents[file.name] = content
    return contents


def verify(folder: Path = EMBEDDED) -> Iterator[FileStatus]:
    """Hash every file of every model: the status that ``bandscope models list`` and ``verify`` show."""
    for model in load_inventory().values():
        for file in model.files:
            yield _inspect(model, file, folder)


def _inspect(model: Model, file: ModelFile, folder: Path) -> FileStatus:
    path = folder / file.name
    if not path.is_file():
        return FileStatus(model, file, path, "missing")
    with path.open("rb") as stream:
        found_sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    found_bytes = path.stat().st_size
    state: FileState = "present" if (found_bytes, found_sha256) == (file.bytes, file.sha256) else "wrong"
    return FileStatus(model, file, path, state, found_bytes, found_sha256)
