"""``bandscope models``: list, verify, download and add models."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.incoming import Placed
from bandscope_dagster.models.inventory import Model, find_model, load_inventory
from bandscope_dagster.models.pins import PINS, find_pins, known_files
from bandscope_dagster.models.provision import add, pull
from bandscope_dagster.models.store import (
    ACCEPT_UNKNOWN,
    FileStatus,
    inspect_model,
    model_folder,
    require_present,
)
from bandscope_dagster.separation.presets import BUILT_IN, model_names
from bandscope_dagster.settings import Settings


def print_models(console: Console, settings: Settings) -> None:
    """Print all models with the state of their files, and the commands that get the missing ones.

    The descriptions come below, so that a terminal of 80 columns has room for both.
    """
    table = Table("model", "kind", "licence", "MB", "files", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    descriptions = Table.grid(padding=(0, 2))
    descriptions.add_column(no_wrap=True)
    missing: list[Model] = []
    for model in load_inventory().values():
        states = Counter(status.state for status in _inspect(console, model, settings.models_path))
        if not model.embedded and states.keys() != {"present"}:
            missing.append(model)
        table.add_row(
            model.name,
            model.kind,
            model.licence,
            _megabytes(model, settings.models_path),
            _describe(states),
        )
        descriptions.add_row(model.name, model.description)
    console.print(table)
    console.print()
    console.print(descriptions)
    console.print()
    console.print(f"Presets, which combine separators: {', '.join(BUILT_IN)}\n", highlight=False)
    unknown = [model.name for model in missing if not model.licence_is_known]
    if missing:
        hints = ["To download a missing model or preset: bandscope models pull NAME"]
        if unknown:
            hints.append(f"With {ACCEPT_UNKNOWN}, if you may use them: {', '.join(unknown)}")
        hints.append(
            f"On a machine without a network: bandscope models add {missing[0].name} --from FILE-OR-FOLDER"
        )
        console.print("\n".join(hints), highlight=False, soft_wrap=True)
    for model in load_inventory().values():
        if model.evidence:
            console.print("\n".join(["", *licence_of(model)]), markup=False, highlight=False, soft_wrap=True)


def licence_of(model: Model) -> list[str]:
    """Lines with the licence of a model's weights, and what was said about it."""
    lines = [f"{model.name}: licence {model.licence}"]
    lines += [f"  {each.date}  {each.says} {each.url}" for each in model.evidence]
    return lines if model.provenance is None else [*lines, f"  {model.provenance}"]


def print_verification(console: Console, settings: Settings, names: Sequence[str]) -> bool:
    """Print one line per file of the models ``names``, or of all models. True if no file is wrong or lacking.

    A preset means all of its models. The models ``names`` must be complete. Without names, a model that is neither part
    of the package nor chosen by the settings may be missing as a whole.
    """
    chosen = set(model_names(settings.separator, settings.separation.stems))
    if settings.tagger_url is None:
        chosen.add(settings.tagger)
    right = True
    for model in _models(names) or load_inventory().values():
        statuses = _inspect(console, model, settings.models_path)
        states = {status.state for status in statuses}
        needed = bool(names) or model.embedded or model.name in chosen
        healthy = states == {"present"} or (states == {"missing"} and not needed)
        right = right and healthy
        for status in statuses:
            colour = "green" if status.state == "present" else "yellow" if healthy else "red"
            word = {"present": "ok", "missing": "missing", "wrong": "WRONG"}[status.state]
            absent = f"{status.subject} is missing, and not needed."
            text = absent if healthy and status.state == "missing" else str(status)
            console.print(f"[{colour}]{word:7}[/{colour}] {escape(text)}", highlight=False, soft_wrap=True)
    return right


def require_models(console: Console, models: Iterable[Model], models_folder: Path) -> None:
    """Verify every file of ``models``, and show the progress: a large model takes a minute.

    Raises:
        ModelFileError: see ``store.require``.
    """
    require_present(status for model in models for status in _inspect(console, model, models_folder))


def pull_models(
    console: Console, settings: Settings, names: Sequence[str], accept_unknown_licence: bool = False
) -> None:
    """Download the missing files of the models ``names``; a preset means all of its models. A bar shows the progress.

    Raises:
        ModelFileError: the licence of a model is unknown and was not accepted, or see ``provision.pull``.
    """
    models = _models(names)
    unknown = [] if accept_unknown_licence else [model for model in models if not model.licence_is_known]
    if unknown:
        said = "\n".join(line for model in unknown for line in licence_of(model))
        raise ModelFileError(
            f"The licence of the weights of {', '.join(model.name for model in unknown)} is unknown, so their use may "
            f"not be allowed. What was said about it:\n{said}\nIf you may use the weights, or take the risk, repeat "
            f"the command with {ACCEPT_UNKNOWN}. Nothing was downloaded."
        )
    for model in models:
        if not model.embedded:
            console.print(f"{model.name}: checking the files that are present", highlight=False)
        _report(console, model, pull(model, settings.models_path, fits_network), settings)


def _models(names: Sequence[str]) -> list[Model]:
    """The models ``names``, a preset being all of its models; each once."""
    return [
        find_model(name) for name in dict.fromkeys(name for given in names for name in model_names(given))
    ]


def add_model(console: Console, settings: Settings, name: str, paths: Sequence[Path]) -> None:
    """Add the model ``name`` from files or folders."""
    model = find_model(name)
    with console.status(f"copying and checking {name}"):  # visible on a terminal only, and until it is done
        _report(console, model, add(model, paths, settings.models_path, fits_network), settings)


def fits_network(model: Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelFileError if tensors of these shapes, by name, are not the parameters of the model's network."""
    import torch

    from bandscope_dagster.separation.chunked import build_module, require_parameters

    assert model.network is not None
    with torch.device("meta"):  # shapes without values: a network may have a gigabyte
        module = build_module(model.network)
    require_parameters(module, shapes, model.name)


def _report(console: Console, model: Model, placements: Iterable[Placed], settings: Settings) -> None:
    for placed in placements:
        console.print(f"{placed.file.name}: {placed.how}", highlight=False)
    folder = model_folder(model, settings.models_path)
    pins = find_pins(model, folder)
    lines = [f"{model.name} is complete in {folder}"]
    if stated := [name for name, pin in pins.items() if pin.revision is not None]:
        lines.append(
            f"The inventory has no digests of {', '.join(stated)}. The digests from the hub's metadata at the pinned "
            f"revision were saved in {folder / PINS}; the files are compared with them from now on."
        )
    if found := [name for name, pin in pins.items() if pin.revision is None]:
        lines.append(
            f"The inventory has no digests of {', '.join(found)}, so only you can know that these files are authentic. "
            f"Their digests were saved in {folder / PINS}; the files are compared with them from now on."
        )
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _megabytes(model: Model, models_folder: Path) -> str:
    """The size of the files with known sizes in MB; "?" for a model whose sizes are known only after it is added."""
    folder = model_folder(model, models_folder)
    size = sum(file.published.bytes for file in known_files(model, find_pins(model, folder)))
    return f"{size / 1e6:.1f}" if size else "?"


def _describe(states: Counter[str]) -> str:
    """The state of a single file; for several files, the number in each state."""
    return ", ".join(state if states.total() == 1 else f"{count} {state}" for state, count in states.items())


def _inspect(console: Console, model: Model, models_folder: Path) -> list[FileStatus]:
    statuses: list[FileStatus] = []
    megabytes = _megabytes(model, models_folder)
    with console.status(f"checking {model.name}") as shown:  # visible on a terminal only, until it is done
        for status in inspect_model(model, model_folder(model, models_folder)):
            statuses.append(status)
            done = sum(status.found_bytes or 0 for status in statuses)
            shown.update(f"checking {model.name}: {done / 1e6:.1f} of {megabytes} MB")
    return statuses
