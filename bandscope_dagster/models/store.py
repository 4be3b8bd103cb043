"""Gives out the bytes of model files, and only when their full SHA-256 is the one that is known to be right."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.conversions import Conversion, find_conversion
from bandscope_dagster.models.inventory import LegacyFile, Model, ModelFile, digest_of_weights

EMBEDDED = Path(__file__).parent  # the files that are part of the package lie beside this module
MEND_EMBEDDED = "`pip install --force-reinstall bandscope`"

FileState = Literal["present", "missing", "wrong"]


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A model's files in memory, exactly as they were hashed."""

    files: Mapping[str, bytes]  # by file name
    sha256: str  # of the weights as they are here; differs from the inventory's where a file was converted


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What was found where a file of a model should be."""

    model: Model
    file: ModelFile
    path: Path
    state: FileState
    found_bytes: int | None = None
    found_sha256: str | None = None
    conversion: Conversion | None = None  # what the folder records of the file, where it was converted there

    @property
    def mend(self) -> str:
        """The command that gets the file."""
        return how_to_get(self.model)

    def __str__(self) -> str:
        name = f"{self.file.name} of model {self.model.name}"
        found = f"{self.found_bytes} bytes with SHA-256 {self.found_sha256}"
        if self.state == "present":
            converted = self.conversion is not None and self.found_sha256 == self.conversion.sha256
            origin = f", converted from {self.file.legacy.name}" if converted and self.file.legacy else ""
            return f"{name} is present{origin}: {found}."
        expected = f"expected {describe(self.file)}"
        if self.conversion is not None:
            recorded = f"{self.conversion.bytes} bytes with SHA-256 {self.conversion.sha256}"
            expected += f" (or, as it was converted here, {recorded})"
        if self.state == "missing":
            return f"{name} is missing: {expected} at {self.path}. Mend it with {self.mend}."
        return (
            f"{name} is not the file in the inventory: {expected}, found {found} at {self.path}. "
            f"Mend it with {self.mend}."
        )


def describe(file: ModelFile | LegacyFile) -> str:
    """A file's size and digest, as error messages give them."""
    return f"{file.bytes} bytes with SHA-256 {file.sha256}"


def how_to_get(model: Model) -> str:
    """The command that puts a model's files in place, and for weights outside the package also the offline one."""
    if model.embedded:
        return MEND_EMBEDDED
    return (
        f"`bandscope models pull {model.name}`, or on a machine without a network "
        f"`bandscope models add {model.name} --from FILE`"
    )


def model_folder(model: Model, models_folder: Path) -> Path:
    """The folder of a model's files: in the package, or one of the model's own in ``models_folder``."""
    return EMBEDDED if model.embedded else models_folder / model.name


def read_verified(model: Model, folder: Path) -> VerifiedModel:
    """The bytes of every file of a model in ``folder``.

    What is hashed is the memory that is returned, so that nothing can change between the check and the load.

    Raises:
        ModelFileError: a file is missing or is not the one in the inventory. The message names the file, the
            expected and the found digest, and the command that mends it.
    """
    contents: dict[str, bytes] = {}
    digests: list[str] = []
    for file in model.files:
        path = folder / file.name
        if not path.is_file():
            raise ModelFileError(str(_judge(model, file, folder, None)))
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        status = _judge(model, file, folder, (len(content), digest))
        if status.state != "present":
            raise ModelFileError(str(status))
        contents[file.name] = content
        digests.append(digest)
    return VerifiedModel(contents, digest_of_weights(digests))


def inspect(model: Model, file: ModelFile, folder: Path) -> FileStatus:
    """Hash one file of a model in ``folder``, a block at a time."""
    path = folder / file.name
    if not path.is_file():
        return _judge(model, file, folder, None)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return _judge(model, file, folder, (stream.tell(), digest))


def require(models: Iterable[Model], models_folder: Path) -> None:
    """Hash every file of ``models``, without loading any.

    Raises:
        ModelFileError: a file is missing or is not the one in the inventory; every such file is named.
    """
    statuses = [
        inspect(model, file, model_folder(model, models_folder)) for model in models for file in model.files
    ]
    if lacking := [str(status) for status in statuses if status.state != "present"]:
        raise ModelFileError("\n".join(lacking))


def _judge(model: Model, file: ModelFile, folder: Path, found: tuple[int, str] | None) -> FileStatus:
    path, conversion = folder / file.name, find_conversion(file, folder)
    if found is None:
        return FileStatus(model, file, path, "missing", conversion=conversion)
    right = {(file.bytes, file.sha256)}
    if conversion is not None:
        right.add((conversion.bytes, conversion.sha256))
    return FileStatus(model, file, path, "present" if found in right else "wrong", *found, conversion)
