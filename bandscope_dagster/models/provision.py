"""Puts model files in place, from the hub or from files at hand; the one module that may touch the network.

Nothing ever stands under a file's final name that was not checked before: files arrive in a folder of their own,
are compared with the inventory by size and full SHA-256, and are then renamed.
"""

import hashlib
import os
import stat
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.conversions import RECORD, Conversion, record_conversion
from bandscope_dagster.models.incoming import incoming
from bandscope_dagster.models.inventory import HubSource, LegacyFile, Model, ModelFile
from bandscope_dagster.models.legacy import convert_legacy
from bandscope_dagster.models.store import MEND_EMBEDDED, describe, how_to_get, inspect, model_folder


@dataclass(frozen=True, slots=True)
class Placed:
    """A file of a model that is in place now, and how it got there."""

    file: ModelFile
    how: Literal["already there", "downloaded", "copied", "converted"]


def pull(model: Model, models_folder: Path) -> Iterator[Placed]:
    """Download what a model lacks from the pinned revision of its repository; what is there and right is left alone.

    Raises:
        ModelFileError: the model is part of the package, the hub does not give a file, or it gives another one.
    """
    source = model.source
    if not isinstance(source, HubSource):
        raise _is_embedded(model)
    folder = model_folder(model, models_folder)
    with incoming(folder) as landing:
        for file in model.files:
            if inspect(model, file, folder).state == "present":
                yield Placed(file, "already there")
                continue
            _download(model, source, file, landing)
            arrived = inspect(model, file, landing)
            if arrived.state != "present":
                arrived.path.unlink()
                raise ModelFileError(
                    f"{source.repository} at revision {source.revision} gave another {file.name} than the one in "
                    f"the inventory: expected {describe(file)}, found {arrived.found_bytes} bytes with SHA-256 "
                    f"{arrived.found_sha256}. It was deleted; what is in place for {model.name} is as it was."
                )
            os.replace(arrived.path, folder / file.name)
            yield Placed(file, "downloaded")


def _download(model: Model, source: HubSource, file: ModelFile, landing: Path) -> None:
    import huggingface_hub as hub

    repository, revision = source.repository, source.revision
    failed = (
        f"{file.name} of model {model.name} cannot be downloaded from {repository} at revision {revision}"
    )
    by_hand = f"`bandscope models add {model.name} --from FILE`"
    if hub.is_offline_mode():
        raise ModelFileError(
            f"{failed}: HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids it. Unset it, or take the file from a "
            f"machine that has it: {by_hand}."
        )
    try:
        # Asked once: where there is no network, the download itself would go on trying for half a minute.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, file.name, revision=revision))
        hub.hf_hub_download(repository, file.name, revision=revision, local_dir=landing)
    except Exception as error:
        # The errors of the library, of its HTTP client and of its Xet client have no base in common. An errno comes
        # from the disk: it is full, or may not be written.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        cause = next(iter(str(error).splitlines()), "").rstrip(". ")
        raise ModelFileError(
            f"{failed}: {type(error).__name__}: {cause}. Pull again when the network is back, or take the file "
            f"from a machine that has it: {by_hand}."
        ) from error


def add(model: Model, paths: Iterable[Path], models_folder: Path) -> Iterator[Placed]:
    """Put a model's files in place from files, or from folders that are searched (not those within them).

    Files are recognised by size and full SHA-256, whatever their names are. A listed legacy pickle is converted.

    Raises:
        ModelFileError: the model is part of the package, a file that was named is none of its files, or some of
            its files are still missing at the end. What was recognised before is in place.
    """
    if model.embedded:
        raise _is_embedded(model)
    folder = model_folder(model, models_folder)
    with incoming(folder) as landing:
        for path in paths:
            if path.is_dir():
                for candidate in sorted(path.iterdir()):
                    if _may_be_of(model, candidate) and (placed := _take(model, candidate, landing)):
                        yield placed
            elif placed := _take(model, path, landing):
                yield placed
            else:
                raise _is_none_of(model, path)
    lacking = [file for file in model.files if inspect(model, file, folder).state != "present"]
    if lacking:
        raise ModelFileError(
            f"{len(lacking)} of the {len(model.files)} files of model {model.name} are still missing:"
            f"{_list_expected(lacking)}\nAdd them too, or get them with {how_to_get(model)}."
        )


def _take(model: Model, path: Path, landing: Path) -> Placed | None:
    """Copy, check and rename one file; None if it is none of the model's."""
    with _open_regular(path) as source:
        if os.fstat(source.fileno()).st_size not in _sizes(model):
            return None
        arrived = landing / "copy"
        digest = hashlib.sha256()
        with arrived.open("wb") as target:
            while block := source.read(2**20):
                digest.update(block)
                target.write(block)
    size, found = arrived.stat().st_size, digest.hexdigest()
    for file in model.files:
        if (size, found) == (file.bytes, file.sha256):
            os.replace(arrived, landing.parent / file.name)
            return Placed(file, "copied")
        if file.legacy and (size, found) == (file.legacy.bytes, file.legacy.sha256):
            return _convert(model, file, file.legacy, arrived)
    arrived.unlink()
    return None


def _convert(model: Model, file: ModelFile, legacy: LegacyFile, arrived: Path) -> Placed:
    landing, folder = arrived.parent, arrived.parent.parent
    if inspect(model, file, folder).state == "present":
        return Placed(file, "already there")
    content = convert_legacy(arrived.read_bytes(), legacy)
    converted = landing / file.name
    converted.write_bytes(content)
    # The record goes first: a file without its record would be a wrong one, a record without its file is no harm.
    conversion = Conversion(len(content), hashlib.sha256(content).hexdigest(), legacy.sha256)
    record_conversion(file, conversion, folder, pending=landing / RECORD)
    os.replace(converted, folder / file.name)
    return Placed(file, "converted")


def _sizes(model: Model) -> set[int]:
    return {known.bytes for file in model.files for known in (file, file.legacy) if known}


def _may_be_of(model: Model, path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:  # a link to nothing, or a file that nobody may look at: not what is searched for
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size in _sizes(model)


@contextmanager
def _open_regular(path: Path) -> Generator[BufferedReader]:
    """A regular file to read from; a pipe would block for ever, and a device may have no end."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise ModelFileError(f"{path} is no regular file; name a file or a folder.")
        yield stream


def _is_embedded(model: Model) -> ModelFileError:
    return ModelFileError(
        f"Model {model.name} is part of the package: there is nothing to get. If `bandscope models verify` finds "
        f"its files damaged, mend them with {MEND_EMBEDDED}."
    )


def _is_none_of(model: Model, path: Path) -> ModelFileError:
    with _open_regular(path) as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
    pickles = ""
    if path.suffix == ".th":
        pickles = "\nA pickle (.th) is converted only if its full digest is known"
        known = any(file.legacy for file in model.files)
        pickles += ", as listed here." if known else f"; of {model.name} none is. Use the safetensors files."
    return ModelFileError(
        f"{path} is none of the files of model {model.name}: it has {size} bytes with SHA-256 {found}; expected:"
        f"{_list_expected(model.files)}{pickles}"
    )


def _list_expected(files: Iterable[ModelFile]) -> str:
    lines = ""
    for file in files:
        lines += f"\n  {file.name}: {describe(file)}"
        if file.legacy:
            lines += f"\n    or, to be converted, {file.legacy.name}: {describe(file.legacy)}"
    return lines
