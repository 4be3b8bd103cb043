"""Verified access to model files: their bytes are returned only if their full SHA-256 is the expected one."""

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.conversions import Conversion, find_conversion
from bandscope_dagster.models.inventory import LISTED, Model, ModelFile, PublishedFile, digest_of_weights
from bandscope_dagster.models.pins import Pin, find_pins, known_files

EMBEDDED = Path(__file__).parent  # the folder of the files that are part of the package
ACCEPT_UNKNOWN = "--accept-unknown-licence"
REINSTALL = "a new installation of Bandscope"

HASHERS: Final = min(8, os.cpu_count() or 1)  # files hashed at once: hashlib releases the interpreter lock

FileState = Literal["present", "missing", "wrong"]


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """A model's files in memory: the bytes that were hashed."""

    files: Mapping[str, bytes]  # by file name
    sha256: str  # of these weights; differs from the inventory's if a file was converted
    digests: Mapping[
        str, str
    ]  # SHA-256 by file name, as found here: of a converted file, not that of its pickle


@dataclass(frozen=True, slots=True)
class VerifiedFolder:
    """A folder with only a model's files, which were verified."""

    path: Path
    sha256: str  # of this model; if files are pinned, over name and digest of every file


@dataclass(frozen=True, slots=True)
class FileStatus:
    """The result of checking one file of a model, or a file that is not the model's."""

    model: Model
    name: str  # the file's, or the model's if the whole model is missing
    path: Path
    state: FileState
    expected: ModelFile | None  # None if the whole model is missing, or the file is not the model's
    found_bytes: int | None = None
    found_sha256: str | None = None
    conversion: Conversion | None = None  # the folder's record of the file, if it was converted there

    @property
    def subject(self) -> str:
        """The file or the model, as messages name it."""
        whole = self.name == self.model.name
        return f"Model {self.name}" if whole else f"{self.name} of model {self.model.name}"

    def __str__(self) -> str:
        fix = f"Get it with {how_to_get(self.model)}."
        if self.expected is None and self.state == "missing":
            return f"{self.subject} is missing: {self.path} has no valid record of a pull or an add. {fix}"
        if self.expected is None:
            return f"{self.path} is not a file of model {self.model.name}: delete or move it."
        found = f"{self.found_bytes} bytes with SHA-256 {self.found_sha256}"
        if self.state == "present":
            return f"{self.subject} is present{self._origin(self.expected)}: {found}."
        expected = f"expected {describe(self.expected)}"
        if self.conversion is not None:
            recorded = f"{self.conversion.bytes} bytes with SHA-256 {self.conversion.sha256}"
            expected += f" (or, if converted here, {recorded})"
        if self.state == "missing":
            return f"{self.subject} is missing: {expected} at {self.path}. {fix}"
        wrong = f"{self.subject} is not the file {self.expected.origin}"
        return f"{wrong}: {expected}, found {found} at {self.path}. {fix}"

    def _origin(self, expected: ModelFile) -> str:
        if self.conversion is not None and self.found_sha256 == self.conversion.sha256 and expected.legacy:
            return f", converted from {expected.legacy.name}"
        return "" if expected.origin == LISTED else f", the file {expected.origin}"


def describe(file: ModelFile | PublishedFile) -> str:
    """A file's size and digest, for error messages; for a file that is not published, those of its pickle."""
    published = file.published if isinstance(file, ModelFile) else file
    text = f"{published.bytes} bytes with SHA-256 {published.sha256}"
    return text if published.name == file.name else f"the weights of {published.name} ({text}), converted"


def how_to_get(model: Model) -> str:
    """The command that gets a model's files; for weights outside the package, also the one without a network."""
    if model.embedded:
        return REINSTALL
    accept = "" if model.licence_is_known else f" {ACCEPT_UNKNOWN}"
    return (
        f"`bandscope models pull {model.name}{accept}`, or on a machine without a network {how_to_add(model)}"
    )


def how_to_add(model: Model) -> str:
    """The command that adds a model's files from a copy."""
    return f"`bandscope models add {model.name} --from {'FOLDER' if model.unlisted else 'FILE'}`"


def model_folder(model: Model, models_folder: Path) -> Path:
    """The folder of a model's files: the package's, or the model's own in ``models_folder``."""
    return EMBEDDED if model.embedded else models_folder / model.name


def read_verified(model: Model, folder: Path) -> VerifiedModel:
    """The bytes of every file of a model in ``folder``.

    The returned memory is what was hashed, so nothing can change between the check and the load.

    Raises:
        ModelFileError: a file is missing or differs from the inventory. The message has the file, the expected and the
            found digest, and the command that gets it.
    """
    contents: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    for file in model.files:
        path = folder / file.name
        if not path.is_file():
            raise ModelFileError(str(_file_status(model, file, folder, None)))
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        status = _file_status(model, file, folder, (len(content), digest))
        if status.state != "present":
            raise ModelFileError(str(status))
        contents[file.name] = content
        digests[file.name] = digest
    return VerifiedModel(contents, digest_of_weights(digests.values()), digests)


def inspect(model: Model, file: ModelFile, folder: Path) -> FileStatus:
    """Hash one file of a model in ``folder``, block by block."""
    path = folder / file.name
    if not path.is_file():
        return _file_status(model, file, folder, None)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return _file_status(model, file, folder, (stream.tell(), digest))


def inspect_files(model: Model, files: Iterable[ModelFile], folder: Path) -> Iterator[FileStatus]:
    """Hash ``files`` of a model in ``folder``, several at once; one status each, in their order."""
    with ThreadPoolExecutor(HASHERS) as threads:
        yield from threads.map(partial(inspect, model, folder=folder), files)


def inspect_model(model: Model, folder: Path) -> Iterator[FileStatus]:
    """Hash every file of a model in ``folder``, and find files that are not the model's.

    A model with unlisted files that was never pulled or added has one status, "missing".
    """
    pins = find_pins(model, folder)
    yield from inspect_files(model, known_files(model, pins), folder)
    if model.unlisted and not pins:
        yield FileStatus(model, model.name, folder, "missing", None)
    yield from find_strays(model, pins, folder)


def find_strays(model: Model, pins: Mapping[str, Pin], folder: Path) -> list[FileStatus]:
    """Files in ``folder`` with names of the model's that are not pinned: for example an extra shard."""
    if model.unlisted is None or not pins:
        return []
    known = {file.name for file in known_files(model, pins)}
    names = sorted(path.name for path in folder.iterdir())
    return [
        FileStatus(model, name, folder / name, "wrong", None)
        for name in names
        if model.unlisted.wants(name) and name not in known
    ]


def require(models: Iterable[Model], models_folder: Path) -> None:
    """Hash every file of ``models``, without loading any.

    Raises:
        ModelFileError: a file is missing, is not the expected one, or is not its model's; the message has every such
            file.
    """
    require_present(
        status for model in models for status in inspect_model(model, model_folder(model, models_folder))
    )


def require_present(statuses: Iterable[FileStatus]) -> None:
    """Raise one ModelFileError for all statuses that are not "present"."""
    if lacking := [str(status) for status in statuses if status.state != "present"]:
        raise ModelFileError("\n".join(lacking))


@contextmanager
def verified_folder(model: Model, folder: Path) -> Generator[VerifiedFolder]:
    """Yield a temporary folder with links to the verified files of a model in ``folder``, and nothing else.

    Use it for libraries that load from a folder: they cannot find a pickle or a module beside the model's files. Load
    within the context. Unlike ``read_verified``, this does not load the memory that was hashed, because a model of many
    gigabytes is read only while it is loaded: a file that is replaced in between is not noticed. The models folder is
    under the operator's control.

    Raises:
        ModelFileError: as ``require``.
    """
    statuses = list(inspect_model(model, folder))
    require_present(statuses)
    digests = {status.name: status.found_sha256 for status in statuses if status.found_sha256}
    with TemporaryDirectory(prefix=f"bandscope-{model.name}-") as temporary:
        for name in digests:
            (Path(temporary) / name).symlink_to((folder / name).resolve())
        yield VerifiedFolder(Path(temporary), _identify(model, digests))


def _identify(model: Model, digests: Mapping[str, str]) -> str:
    """One digest for a model, over the digests of its files by name."""
    if model.unlisted is None:
        return digest_of_weights(digests.values())
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_status(model: Model, file: ModelFile, folder: Path, found: tuple[int, str] | None) -> FileStatus:
    path, conversion = folder / file.name, find_conversion(file, folder)
    if found is None:
        return FileStatus(model, file.name, path, "missing", file, conversion=conversion)
    right: set[tuple[int | None, str | None]] = {(file.bytes, file.sha256)}
    if conversion is not None:
        right.add((conversion.bytes, conversion.sha256))
    state = "present" if found in right else "wrong"
    return FileStatus(model, file.name, path, state, file, *found, conversion)
