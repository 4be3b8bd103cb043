"""Takes a model from a folder on the word of the one who adds it: files whose digests the inventory does not know."""

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
    """Put a whole model in place from files and folders (not those within them); files are known by their names.

    What the inventory lists must be the listed file. The digests of the others are pinned as they are found; one that
    is the file that the hub stated before remains vouched for by the hub.

    Raises:
        ModelFileError: a file that was named is none of the model's, a listed file is another, a file of weights is
            no whole safetensors file, or the model is not whole. Then what is in place is as it was.
    """
    listed = {file.name: file for file in model.files}
    sources = _find(model, unlisted, paths)
    lacking = [*sorted(listed.keys() - sources), *unlisted.unmet(sources.keys() - listed)]
    if lacking:
        raise ModelFileError(
            f"Model {model.name} is not whole in what was given: {', '.join(lacking)} is missing. It is added as a "
            f"whole; name every folder that holds files of it (--from is repeatable). Nothing was copied."
        )
    folder = model_folder(model, models_folder)
    with incoming(folder) as landing:
        require_space(model, sum(path.stat().st_size for path in sources.values()), folder)
        before = find_pins(model, folder)
        pins: dict[str, Pin] = {}
        for name, path in sources.items():
            with open_regular(path) as source:
                size, found = copy_hashed(source, landing / name)
            if name.endswith(".safetensors"):
                require_readable(landing / name)
            if name not in listed:
                pin = Pin(size, found, revision=None)
                stated = before.get(name, pin)
                pins[name] = stated if (stated.bytes, stated.sha256) == (size, found) else pin
            elif (size, found) != (listed[name].bytes, listed[name].sha256):
                raise ModelFileError(
                    f"{path} is not the {name} of model {model.name}: expected {describe(listed[name])}, found "
                    f"{size} bytes with SHA-256 {found}. Nothing was put in place."
                )
        require_all_shards(sources, landing / INDEX if INDEX in sources else None, "What was given")
        record_pins(pins, folder, pending=landing / PINS)
        for file in known_files(model, pins):
            os.replace(landing / file.name, folder / file.name)
            yield Placed(file, "copied")
    require_present(find_strays(model, pins, folder))


def _find(model: Model, unlisted: UnlistedFiles, paths: Iterable[Path]) -> dict[str, Path]:
    """The files of a model among ``paths`` and in the folders among them, by name."""
    listed = {file.name for file in model.files}
    sources: dict[str, Path] = {}
    for path in paths:
        for candidate in sorted(path.iterdir()) if path.is_dir() else [path]:
            name = candidate.name
            if not (name in listed or unlisted.wants(name)):
                if candidate == path:
                    raise ModelFileError(
                        f"{path} is by its name none of the files of model {model.name}, which are "
                        f"{', '.join((*sorted(listed), *unlisted.required, *unlisted.optional))}."
                    )
                continue
            if name in sources:
                raise ModelFileError(
                    f"{name} was given twice: {sources[name]} and {candidate}. Name one of them."
                )
            sources[name] = candidate
    return sources
