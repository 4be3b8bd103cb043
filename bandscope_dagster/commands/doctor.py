"""``bandscope doctor`` and ``bandscope models``: is everything in place, and what mends what is not."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bandscope_dagster.errors import BandscopeError, SettingsError
from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.models.store import EMBEDDED, verify
from bandscope_dagster.separation.device import resolve_device
from bandscope_dagster.separation.registry import SEPARATORS
from bandscope_dagster.settings import Settings, dagster_home, load_settings, unknown_variables
from bandscope_dagster.tagging.registry import TAGGERS

PROBE_KEY: Final = "doctor/probe"  # written, read and deleted, to know that the storage can do all three


def print_models(console: Console) -> None:
    """The inventory as a table."""
    states = {(status.model.name, status.file.name): status.state for status in verify()}
    table = Table("model", "kind", "licence", "MB", "files", "description", box=SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    for model in load_inventory().values():
        table.add_row(
            model.name,
            model.kind,
            model.licence,
            f"{sum(file.bytes for file in model.files) / 1e6:.1f}",
            ", ".join(sorted({states[model.name, file.name] for file in model.files})),
            model.description,
        )
    console.print(table)


def print_verification(console: Console, folder: Path = EMBEDDED) -> bool:
    """One line per model file in ``folder``; returns whether all are right."""
    right = True
    for status in verify(folder):
        right = right and status.state == "present"
        mark = "[green]ok[/green]   " if status.state == "present" else "[red]WRONG[/red]"
        console.print(f"{mark} {escape(str(status))}", highlight=False, soft_wrap=True)
    return right


def examine(console: Console, models_folder: Path = EMBEDDED) -> bool:
    """Go through all that a run needs; returns whether all of it is in place."""

    def passes(name: str, check: Callable[[], str]) -> bool:
        try:
            finding, mark, healthy = check(), "[green]ok[/green]  ", True
        except (BandscopeError, OSError) as error:
            finding, mark, healthy = str(error), "[red]FAIL[/red]", False
        console.print(f"{mark} {name:13} {escape(finding)}", highlight=False, soft_wrap=True)
        return healthy

    results = [passes("settings", _settings)]
    if results[0]:
        settings = load_settings()
        results += [
            passes("storage", lambda: _storage(settings)),
            passes("device", lambda: _device(settings)),
        ]
    results += [passes("models", lambda: _models(models_folder)), passes("Dagster home", _dagster_home)]
    return all(results)


def _settings() -> str:
    settings = load_settings()
    if unknown := unknown_variables():
        known = ", ".join(Settings.model_fields).upper()
        raise SettingsError(
            f"{', '.join(unknown)}: no such setting, so it does nothing; after BANDSCOPE_ stands one of {known}"
        )
    for variable, name, known in (
        ("SEPARATOR", settings.separator, SEPARATORS),
        ("TAGGER", settings.tagger, TAGGERS),
    ):
        if name not in known:
            raise SettingsError(f"BANDSCOPE_{variable}={name!r} is unknown; choose one of {', '.join(known)}")
    return f"separator {settings.separator}, tagger {settings.tagger}, {settings.songs_per_run} songs per run"


def _storage(settings: Settings) -> str:
    store = settings.open_store()
    with store.create(PROBE_KEY) as pending:
        pending.write(b"bandscope")
    if store.read(PROBE_KEY) != b"bandscope":
        raise OSError(f"{store.url} gives back something else than what was written to it")
    store.delete(PROBE_KEY)
    return f"{store.url} can be written, read and deleted"


def _device(settings: Settings) -> str:
    return f"{resolve_device(settings.device)} (asked for: {settings.device})"


def _models(folder: Path) -> str:
    wrong = [str(status) for status in verify(folder) if status.state != "present"]
    if wrong:
        raise OSError("\n".join(wrong))
    return f"{', '.join(load_inventory())}: every file has the digest of the inventory"


def _dagster_home() -> str:
    given = bool(os.environ.get("DAGSTER_HOME"))
    home = dagster_home()
    with tempfile.TemporaryFile(dir=home):
        pass
    return f"{home}" if given else f"{home} (to see it in the UI: export DAGSTER_HOME={home})"
