"""Adds a model from a folder if the inventory does not know all of its digests: they are pinned as they are found."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.checkpoint import INDEX, require_all_shards, require_readable
from bandscope_dagster.models.incoming import Placed, copy_hashed, incoming, open_regular, require_space
from bandscope_dagster.models.inventory import Model, UnlistedFiles
from bandscope_dagster.models.pins import PINS, Pin, find_pins, known_files, record_pins
from bandscope_dagster.models.store import describe, find_strays, model_folder, require_present


def adopt(
    model: Model, unlisted: UnlistedFiles, paths: Iterable[Path], models_folder: Path
) -> Iterator[Placed]:
    """Add a whole model from files and folders (without subfolders); files are recognised by their names.

    A file in the inventory must have the listed digest. The digests of the others are pinned as they are found. A file
    that equals an existing pin from the hub's metadata keeps that pin.

    Raises:
        ModelFileError: a given file is not the model's, a listed file has another digest, a file of weights is not a
            complete safetensors file, or the model is incomplete. The files in place do not change then.
    """
    listed = {file.name: file for file in model.files}
    sources = _find(model, unlisted, paths)
    lacking = [*sorted(listed.keys() - sources), *unlisted.unmet(sources.keys() - listed)]
    if lacking:
        raise ModelFileError(
            f"Model {model.name} is incomplete, without {', '.join(lacking)}. Add all of its files at once: give "
            f"every folder that has some of them (--from can be repeated). Nothing was copied."
        )
    folder = model_folder(model, models_folder)
    with incoming(folder) as download_folder:
        require_space(model, sum(path.stat().st_size for path in sources.values()), folder)
        before = find_pins(model, folder)
        pins: dict[str, Pin] = {}
        for name, path in sources.items():
            with open_regular(path) as source:
                size, found = copy_hashed(source, download_folder / name)
            if name.endswith(".safetensors"):
                require_readable(download_folder / name)
            if name not in listed:
                pin = Pin(size, found, revision=None)
                stated = before.get(name, pin)
                pins[name] = stated if (stated.bytes, stated.sha256) == (size, found) else pin
            elif (size, found) != (listed[name].bytes, listed[name].sha256):
                raise ModelFileError(
                    f"{path} is not the {name} of model {model.name}: expected {describe(listed[name])}, found "
                    f"{size} bytes with SHA-256 {found}. Nothing was added."
                )
        require_all_shards(sources, download_folder / INDEX if INDEX in sources else None, "the given files")
        record_pins(pins, folder, pending=download_folder / PINS)
        for file in known_files(model, pins):
            os.replace(download_folder / file.name, folder / file.name)
            yield Placed(file, "copied")
    require_present(find_strays(model, pins, folder))


def _find(model: Model, unlisted: UnlistedFiles, paths: Iterable[Path]) -> dict[str, Path]:
    """The model's files among ``paths``, and in the folders among them, by name."""
    listed = {file.name for file in model.files}
    sources: dict[str, Path] = {}
    for path in paths:
        for candidate in sorted(path.iterdir()) if path.is_dir() else [path]:
            name = candidate.name
            if not (name in listed or unlisted.wants(name)):
                if candidate == path:
                    raise ModelFileError(
                        f"{path}: model {model.name} has no file of this name; its files are "
                        f"{', '.join((*sorted(listed), *unlisted.required, *unlisted.optional))}."
                    )
                continue
            if name in sources:
                raise ModelFileError(
                    f"{name} was given twice: {sources[name]} and {candidate}. Give only one of them."
                )
            sources[name] = candidate
    return sources
