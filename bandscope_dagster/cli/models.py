"""``bandscope models``: which models there are, whether their files are right, and how the files get here."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bandscope_dagster.models.incoming import Placed
from bandscope_dagster.models.inventory import Model, find_model, load_inventory
from bandscope_dagster.models.pins import PINS, find_pins, known_files
from bandscope_dagster.models.provision import add, pull
from bandscope_dagster.models.store import FileStatus, inspect_model, model_folder, require_present
from bandscope_dagster.settings import Settings


def print_models(console: Console, settings: Settings) -> None:
    """The inventory as a table, with the state of each model's files, and how to get those that are missing."""
    table = Table("model", "kind", "licence", "MB", "files", "description", box=SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    lacking: list[str] = []
    for model in load_inventory().values():
        states = Counter(status.state for status in _inspect(console, model, settings.models_path))
        if not model.embedded and states.keys() != {"present"}:
            lacking.append(model.name)
        table.add_row(
            model.name,
            model.kind,
            model.licence,
            _megabytes(model, settings.models_path),
            _describe(states),
            model.description,
        )
    console.print(table)
    if lacking:
        console.print(
            f"To get what is not here: bandscope models pull {' '.join(lacking)}\n"
            f"On a machine without a network: bandscope models add {lacking[0]} --from FILE-OR-FOLDER",
            highlight=False,
            soft_wrap=True,
        )


def print_verification(console: Console, settings: Settings, names: Sequence[str]) -> bool:
    """One line per file of the models called ``names``, or of all; returns whether all is as it must be.

    A model that is named must be complete. Of all models, one may be absent as a whole if it is neither part of the
    package nor chosen by the settings; then nothing needs it.
    """
    chosen = {settings.separator, settings.tagger}
    right = True
    for model in [find_model(name) for name in names] or load_inventory().values():
        statuses = _inspect(console, model, settings.models_path)
        states = {status.state for status in statuses}
        needed = bool(names) or model.embedded or model.name in chosen
        healthy = states == {"present"} or (states == {"missing"} and not needed)
        right = right and healthy
        for status in statuses:
            colour = "green" if status.state == "present" else "yellow" if healthy else "red"
            word = {"present": "ok", "missing": "missing", "wrong": "WRONG"}[status.state]
            absent = f"{status.subject} is not here, and nothing needs it."
            text = absent if healthy and status.state == "missing" else str(status)
            console.print(f"[{colour}]{word:7}[/{colour}] {escape(text)}", highlight=False, soft_wrap=True)
    return right


def require_models(console: Console, models: Iterable[Model], models_folder: Path) -> None:
    """Hash every file of ``models``, and show how far it is: of a large model that takes a minute.

    Raises:
        ModelFileError: as ``store.require``.
    """
    require_present(status for model in models for status in _inspect(console, model, models_folder))


def pull_models(console: Console, settings: Settings, names: Sequence[str]) -> None:
    """Download what the models called ``names`` lack; the hub's library shows how far each file is."""
    for model in [find_model(name) for name in names]:
        if not model.embedded:
            console.print(f"{model.name}: checking what is here already", highlight=False)
        _report(console, model, pull(model, settings.models_path), settings)


def add_model(console: Console, settings: Settings, name: str, paths: Sequence[Path]) -> None:
    """Put the files of the model called ``name`` in place from files or folders."""
    model = find_model(name)
    with console.status(f"copying and checking {name}"):  # on a terminal, and only as long as it takes
        _report(console, model, add(model, paths, settings.models_path), settings)


def _report(console: Console, model: Model, placements: Iterable[Placed], settings: Settings) -> None:
    for placed in placements:
        console.print(f"{placed.file.name}: {placed.how}", highlight=False)
    folder = model_folder(model, settings.models_path)
    pins = find_pins(model, folder)
    lines = [f"{model.name} is complete in {folder}"]
    if stated := [name for name, pin in pins.items() if pin.revision is not None]:
        lines.append(
            f"The inventory knows no digests of {', '.join(stated)}. What the hub's metadata states of them at the "
            f"pinned revision is now in {folder / PINS}, and they are compared with that from now on."
        )
    if found := [name for name, pin in pins.items() if pin.revision is None]:
        lines.append(
            f"Nobody but you vouches for {', '.join(found)}: their digests were taken as they are. They are now in "
            f"{folder / PINS}, and the files are compared with that from now on."
        )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _megabytes(model: Model, models_folder: Path) -> str:
    """The size of the files that are known; of some models, none is before they are here."""
    folder = model_folder(model, models_folder)
    size = sum(file.bytes for file in known_files(model, find_pins(model, folder)))
    return f"{size / 1e6:.1f}" if size else "?"


def _describe(states: Counter[str]) -> str:
    """Of one file its state, of several their number in each state."""
    return ", ".join(state if states.total() == 1 else f"{count} {state}" for state, count in states.items())


def _inspect(console: Console, model: Model, models_folder: Path) -> list[FileStatus]:
    statuses: list[FileStatus] = []
    megabytes = _megabytes(model, models_folder)
    with console.status(f"checking {model.name}") as shown:  # on a terminal, and only as long as it takes
        for status in inspect_model(model, model_folder(model, models_folder)):
            statuses.append(status)
            done = sum(status.found_bytes or 0 for status in statuses)
            shown.update(f"checking {model.name}: {done / 1e6:.1f} of {megabytes} MB")
    return statuses
