"""``bandscope doctor`` and ``bandscope models``: is everything in place, and what mends what is not."""

import os
import tempfile
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.models.store import verify

PROBE_KEY: Final = "doctor/probe"  # written, read and deleted, to know that the storage can do all three


def print_models(console: Console) -> None:
    """The inventory as a table."""
    table = Table("model", "kind", "licence", "MB", "files", "description")
    states = {status.file.sha256: status.state for status in verify()}
    for model in load_inventory().values():
        table.add_row(
            model.name,
            model.kind,
            model.licence,
            f"{sum(file.bytes for file in model.files) / 1e6:.1f}",
            ", ".join(f"{file.name} ({states[file.sha256]})" for file in model.files),
            model.description,
        )
    console.print(table)


def print_verification(console: Console) -> bool:
    """One line per model file; returns whether all are right."""
    right = True
    for status in verify():
        right = right and status.state == "present"
        mark = "[green]ok[/green]   " if status.state == "present" else "[red]WRONG[/red]"
        console.print(f"{mark} {escape(str(status))}", highlight=False, soft_wrap=True)
    return right


def examine(console: Console) -> bool:
    """Go through all that a run needs; returns whether all of it is in place."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("settings", _settings),
        ("storage", _storage),
        ("models", _models),
        ("device", _device),
        ("Dagster home", _dagster_home),
    ]
    healthy = True
    for name, check in checks:
        try:
            finding, mark = check(), "[green]ok[/green]  "
        except (BandscopeError, OSError, ValueError) as error:
            finding, mark, healthy = str(error), "[red]FAIL[/red]", False
        console.print(f"{mark} {name:13} {escape(finding)}", highlight=False, soft_wrap=True)
    return healthy


def _settings() -> str:
    from bandscope_dagster.settings import load_settings

    settings = load_settings()
    return f"separator {settings.separator}, tagger {settings.tagger}, {settings.songs_per_run} songs per run"


def _storage() -> str:
    from bandscope_dagster.settings import load_settings

    store = load_settings().open_store()
    with store.create(PROBE_KEY) as pending:
        pending.write(b"bandscope")
    if store.read(PROBE_KEY) != b"bandscope":
        raise OSError(f"{store.url} gives back something else than what was written to it")
    store.delete(PROBE_KEY)
    return f"{store.url} can be written, read and deleted"


def _models() -> str:
    wrong = [str(status) for status in verify() if status.state != "present"]
    if wrong:
        raise OSError("\n".join(wrong))
    return f"{', '.join(load_inventory())}: every file has the digest of the inventory"


def _device() -> str:
    from bandscope_dagster.separation.device import resolve_device
    from bandscope_dagster.settings import load_settings

    asked = load_settings().device
    return f"{resolve_device(asked)} (asked for: {asked})"


def _dagster_home() -> str:
    from bandscope_dagster.settings import dagster_home

    given = "DAGSTER_HOME" in os.environ
    home = dagster_home()
    with tempfile.TemporaryFile(dir=home):
        pass
    return f"{home}" if given else f"{home} (to see it in the UI: export DAGSTER_HOME={home})"
