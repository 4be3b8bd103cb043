"""Provides model files, from the hub or from local copies.

Files are verified before they get their final names: they arrive in a download folder, their size and full SHA-256 are
compared with the inventory or the pins, and then they are renamed.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.adoption import adopt
from bandscope_dagster.models.conversions import RECORD, Conversion, record_conversion
from bandscope_dagster.models.hub import download, pins_of_revision
from bandscope_dagster.models.incoming import Placed, copy_hashed, incoming, open_regular, require_space
from bandscope_dagster.models.inventory import (
    HubSource,
    Model,
    ModelFile,
    PublishedFile,
    ReleaseSource,
)
from bandscope_dagster.models.legacy import convert_legacy, convert_state, shapes_in
from bandscope_dagster.models.pins import PINS, are_of_the_hub, find_pins, known_files, record_pins
from bandscope_dagster.models.releases import download_asset
from bandscope_dagster.models.store import (
    REINSTALL,
    describe,
    find_strays,
    how_to_get,
    inspect,
    inspect_files,
    model_folder,
    require_present,
)

Fits = Callable[[Model, Mapping[str, tuple[int, ...]]], None]
"""Raises ModelFileError if tensors of these shapes, by name, are not the parameters of the model's network."""


def pull(model: Model, models_folder: Path, fits: Fits | None = None) -> Iterator[Placed]:
    """Download the missing and damaged files of a model from the pinned revision of its repository, or its release.

    Digests that the inventory does not know are pinned first, from the hub's metadata at that revision. Weights that
    are published as a pickle are converted; ``fits`` may refuse the shapes of the converted tensors.

    Raises:
        ModelFileError: the model is part of the package, the disk has no room for it, a download fails or is not the
            expected file, or the folder has a file that is not the model's.
    """
    source = model.source
    if not isinstance(source, HubSource | ReleaseSource):
        raise _is_embedded(model)
    folder = model_folder(model, models_folder)
    with incoming(folder) as download_folder:
        pins = find_pins(model, folder)
        if model.unlisted and isinstance(source, HubSource) and not are_of_the_hub(pins):
            pins = pins_of_revision(model, model.unlisted, source, download_folder)
        files = known_files(model, pins)
        statuses = inspect_files(model, files, folder)
        lacking = [file for file, status in zip(files, statuses, strict=True) if status.state != "present"]
        require_space(model, sum(_space(file) for file in lacking), folder)
        if pins:
            record_pins(pins, folder, pending=download_folder / PINS)
        for file in files:
            if file not in lacking:
                yield Placed(file, "already there")
                continue
            published = file.published
            arrived = _download(model, source, published, download_folder)
            _require_digest(model, source, published, file.origin, arrived)
            if published == file.legacy:
                _convert(model, file, published, arrived, fits)
                yield Placed(file, "downloaded and converted")
            else:
                os.replace(arrived, folder / file.name)
                yield Placed(file, "downloaded")
    require_present(find_strays(model, pins, folder))


def add(
    model: Model, paths: Iterable[Path], models_folder: Path, fits: Fits | None = None
) -> Iterator[Placed]:
    """Add a model's files from copies: from files, or from all files of a folder (without subfolders).

    Files are recognised by size and full SHA-256, under any name. A listed legacy pickle is converted; ``fits`` may
    refuse the shapes of its tensors. If the inventory does not know all digests of the model, its files are recognised
    by their names (``adopt``).

    Raises:
        ModelFileError: the model is part of the package, a given file is not the model's, or some of its files are
            still missing at the end. The files that were recognised before are added.
    """
    if model.embedded:
        raise _is_embedded(model)
    if model.unlisted:
        yield from adopt(model, model.unlisted, paths, models_folder)
        return
    folder = model_folder(model, models_folder)
    with incoming(folder) as download_folder:
        for path in paths:
            if path.is_dir():
                for candidate in sorted(path.iterdir()):
                    if _may_be_of(model, candidate) and (
                        placed := _take(model, candidate, download_folder, fits)
                    ):
                        yield placed
            elif placed := _take(model, path, download_folder, fits):
                yield placed
            else:
                raise _is_none_of(model, path)
    lacking = [file for file in model.files if inspect(model, file, folder).state != "present"]
    if lacking:
        raise ModelFileError(
            f"{len(lacking)} of the {len(model.files)} files of model {model.name} are still missing:"
            f"{_list_expected(lacking)}\nAdd them too, or get them with {how_to_get(model)}."
        )


def _space(file: ModelFile) -> int:
    """The bytes on the disk that it takes to get a file; a pickle is there until it is converted."""
    return file.published.bytes * (2 if file.published == file.legacy else 1)


def _download(
    model: Model, source: HubSource | ReleaseSource, file: PublishedFile, download_folder: Path
) -> Path:
    if isinstance(source, HubSource):
        return download(model, source, file.name, download_folder)
    return download_asset(model, source, file.name, file.bytes, download_folder)


def _require_digest(
    model: Model, source: HubSource | ReleaseSource, file: PublishedFile, origin: str, arrived: Path
) -> None:
    with arrived.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
    if (size, found) == (file.bytes, file.sha256):
        return
    arrived.unlink()
    at = f"revision {source.revision}" if isinstance(source, HubSource) else f"release {source.release}"
    raise ModelFileError(
        f"{source.repository} at {at} sent a {file.name} that is not the one {origin}: expected {describe(file)}, "
        f"found {size} bytes with SHA-256 {found}. It was deleted; the files of {model.name} did not change."
    )


def _take(model: Model, path: Path, download_folder: Path, fits: Fits | None) -> Placed | None:
    """Copy, verify and rename one file; None if it is not the model's."""
    arrived = download_folder / "copy"
    with open_regular(path) as source:
        if os.fstat(source.fileno()).st_size not in _sizes(model):
            return None
        size, found = copy_hashed(source, arrived)
    for file in model.files:
        if (size, found) == (file.bytes, file.sha256):
            os.replace(arrived, download_folder.parent / file.name)
            return Placed(file, "copied")
        if file.legacy and (size, found) == (file.legacy.bytes, file.legacy.sha256):
            return _convert(model, file, file.legacy, arrived, fits)
    arrived.unlink()
    return None


def _convert(
    model: Model, file: ModelFile, legacy: PublishedFile, arrived: Path, fits: Fits | None
) -> Placed:
    download_folder, folder = arrived.parent, arrived.parent.parent
    if inspect(model, file, folder).state == "present":
        return Placed(file, "already there")
    if model.network is None:
        content = convert_legacy(arrived.read_bytes(), legacy)
    else:
        content = convert_state(arrived.read_bytes(), legacy)
        if fits is not None:
            fits(model, shapes_in(content))
    converted = download_folder / file.name
    converted.write_bytes(content)
    # The record comes first: a file without its record counts as wrong, a record without its file is harmless.
    conversion = Conversion(len(content), hashlib.sha256(content).hexdigest(), legacy.sha256)
    record_conversion(file, conversion, folder, pending=download_folder / RECORD)
    os.replace(converted, folder / file.name)
    return Placed(file, "converted")


def _sizes(model: Model) -> set[int]:
    return {known.bytes for file in model.files for known in (file.published, file.legacy) if known}


def _may_be_of(model: Model, path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:  # a broken link, or a file without permission: not one of the model's
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size in _sizes(model)


def _is_embedded(model: Model) -> ModelFileError:
    return ModelFileError(
        f"Model {model.name} is part of the package and needs no download. If `bandscope models verify` finds damaged "
        f"files, get them with {REINSTALL}."
    )


def _is_none_of(model: Model, path: Path) -> ModelFileError:
    with open_regular(path) as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
    pickles = ""
    if path.suffix in (".th", ".ckpt"):
        pickles = "\nA pickle (.th, .ckpt) is converted only if its full digest is known"
        known = any(file.legacy for file in model.files)
        pickles += ", as listed here." if known else f"; {model.name} has none. Use the safetensors files."
    return ModelFileError(
        f"{path} is not a file of model {model.name}: it has {size} bytes with SHA-256 {found}; expected:"
        f"{_list_expected(model.files)}{pickles}"
    )


def _list_expected(files: Iterable[ModelFile]) -> str:
    lines = ""
    for file in files:
        lines += f"\n  {file.name}: {describe(file)}"
        if file.legacy and file.legacy != file.published:
            lines += f"\n    or, for conversion, {file.legacy.name}: {describe(file.legacy)}"
    return lines
