"""``bandscope doctor``: checks all that a run needs, and says how to fix what fails."""

import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.estimate import speed_line, tells_speed
from bandscope_dagster.cli.models import require_models
from bandscope_dagster.cli.terminal import one_line, progress_bar
from bandscope_dagster.device import resolve_device
from bandscope_dagster.errors import BandscopeError, SettingsError, counted
from bandscope_dagster.models.inventory import Model, load_inventory
from bandscope_dagster.models.pins import find_pins
from bandscope_dagster.models.store import model_folder
from bandscope_dagster.orchestration.home import dagster_home, home_path
from bandscope_dagster.orchestration.resources import models_here
from bandscope_dagster.orchestration.result_webhook import Receiver
from bandscope_dagster.orchestration.used_stores import check_store
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.settings import Settings, load_settings, unknown_variables
from bandscope_dagster.storage.objects.probe import (
    require_conditional_writes,
    require_writable,
    without_trace,
)
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_CATALOG, SONGS
from bandscope_dagster.tagging.options import ServerOptions
from bandscope_dagster.tagging.registry import facts_of_server

SHOWN: Final = 20  # findings of each kind


def examine(console: Console, *, read_only: bool = False, deep: bool = False) -> bool:
    """Print one line per check. True if all checks pass.

    ``read_only`` checks what a reader needs, and writes nothing. ``deep`` adds what is wrong with stored songs.
    """

    def passes(name: str, check: Callable[[], str]) -> bool:
        try:
            finding, mark, healthy = check(), "[green]ok[/green]  ", True
        except (BandscopeError, OSError) as error:
            finding, mark, healthy = str(error), "[red]FAIL[/red]", False
        console.print(f"{mark} {name:13} {escape(finding)}", highlight=False, soft_wrap=True)
        return healthy

    results = [passes("settings", _settings)]
    settings = _valid_settings()
    if settings is None:
        unchecked = "storage" if read_only else f"storage, device, tagger{', songs' if deep else ''}"
        console.print(
            f"[yellow]—[/yellow]    {unchecked}: not checked, because the settings are wrong", highlight=False
        )
    if read_only:
        return settings is not None and passes("storage", lambda: _reading(settings)) and all(results)
    if settings is not None:
        results += [
            passes("storage", lambda: _reading(settings) if deep else _storage(settings)),
            passes("device", lambda: _device(settings)),
        ]
        if (server := settings.tagger_server) is not None:
            results.append(passes("tagger", lambda: _tagger(settings.tagger, server)))
    results += [passes("models", lambda: _models(console, settings)), passes("Dagster home", _dagster_home)]
    if settings is not None and all(results) and tells_speed(settings):
        results.append(passes("speed", lambda: speed_line(console, settings)))
    if settings is not None and deep:
        results.append(passes("songs", lambda: _songs(console, settings)))
    return all(results)


def _songs(console: Console, settings: Settings) -> str:
    """Compare the store with Dagster's records, and print the findings, each kind with the command that fixes it."""
    from bandscope_dagster.catalogs.recipes import all_catalogs
    from bandscope_dagster.catalogs.refresh import outdated_catalogs
    from bandscope_dagster.orchestration.deep_check import Finding, Kind, check_deeply
    from bandscope_dagster.pages.page_folder import PageFolder
    from bandscope_dagster.storage.tables.song_files import known_songs
    from bandscope_dagster.tagging.registry import present_from

    store = settings.open_store()
    check_store(store, dagster_home())
    with progress_bar(console) as bars:
        task = bars.add_task("reading all songs")
        checked = check_deeply(store, lambda done, of: bars.update(task, completed=done, total=of))
    files = checked.files
    catalogs = all_catalogs(present_from(settings.present_from, settings.audible_db)) if len(files) else ()
    outdated = outdated_catalogs(store, catalogs, known_songs(files))
    gone = PageFolder(store).gone(checked.with_page)
    stored = set(files.song_ids)
    pages = [song for song in gone.songs if song in stored] + ["index"] * gone.index
    found = dict(checked.findings) | {
        Kind.CATALOGS: [Finding(Kind.CATALOGS, name, reason) for name, reason in outdated],
        Kind.PAGES: [Finding(Kind.PAGES, page, "") for page in pages],
    }
    waiting = checked.not_processed
    songs = f"{counted(len(files), 'song')} read; {counted(waiting, 'upload')} waiting for `bandscope run`"
    for kind in Kind:
        if not (findings := found.get(kind)):
            continue
        subjects = list(dict.fromkeys(each.subject for each in findings))
        heading = f"{kind} ({len(findings)}). {_fix(kind.name.lower(), subjects, store)}"
        console.print(f"[red]{escape(heading)}[/red]", highlight=False, soft_wrap=True)
        for each in findings[:SHOWN]:
            line = f"  {each.subject}{': ' if each.text else ''}{each.text}"
            console.print(escape(one_line(line)), highlight=False, soft_wrap=True)
        if len(findings) > SHOWN:
            console.print(f"  and {len(findings) - SHOWN} more", highlight=False)
    if any(found.values()):
        raise StoreDisagrees(f"{songs}; see above")
    return f"{songs}; store and records agree"


class StoreDisagrees(BandscopeError):
    """Files in the store are missing, damaged or unknown; the findings were printed."""


def _fix(kind: str, subjects: Sequence[str], store: ObjectStore) -> str:
    """The command that fixes findings of a kind, for the first of their subjects."""
    each = "" if len(subjects) == 1 else ", for each song"
    if kind in ("damaged_inside", "outdated"):
        return f"Fix: `bandscope run --recompute --songs {subjects[0]}`{each}"
    if kind == "no_upload":
        how = (
            "with the same bytes in the same parts"
            if store.url.startswith("s3://")
            else "with its time (`cp -p`)"
        )
        return (
            f"Put the upload back under its name (`bandscope status {subjects[0]}`), {how}; then `bandscope run`,"
            " with `--recompute` if files are damaged inside or outdated"
        )
    if kind == "orphaned":
        on_s3 = f"aws s3 rm {store.url} --recursive --exclude '*' --include '*/{subjects[0]}.parquet'"
        local = f"rm {shlex.quote(store.url)}/*/{subjects[0]}.parquet"
        return f"If they are not needed: `{on_s3 if store.url.startswith('s3://') else local}`{each}"
    if kind == "left_over":
        return f"Fix: `rm {shlex.quote(subjects[0])}`{', and the same for the others' if each else ''}"
    return "Fix: `bandscope run`"


def _valid_settings() -> Settings | None:
    try:
        return load_settings()
    except SettingsError:
        return None


def _settings() -> str:
    settings = load_settings()
    if unknown := unknown_variables():
        known = ", ".join(Settings.model_fields).upper()
        raise SettingsError(
            f"{', '.join(unknown)}: no such setting, so it has no effect; use BANDSCOPE_ with one of {known}"
        )
    models_here(settings, ANALYSIS_TABLES)
    Receiver.of(settings)
    songs = counted(settings.songs_per_run, "song")
    return f"separator {settings.separator}, tagger {settings.tagger}, {songs} per run"


def _storage(settings: Settings) -> str:
    store = settings.open_store()
    check_store(store, home_path())
    with without_trace(store):
        require_writable(store)
        require_conditional_writes(store)
    return f"writing, reading and deleting work in {store.url}"


def _reading(settings: Settings) -> str:
    """Read the first file of the catalog, or of any table, or say that there is none yet."""
    store = settings.open_store()
    check_store(store, home_path())
    for table in (SONG_CATALOG, SONGS):
        for found in store.list(table.name):
            with store.open(found.key) as file:
                file.read(4)
            return f"listing and reading work in {store.url}"
    return f"listing works in {store.url}; there is no table to read yet"


def _device(settings: Settings) -> str:
    if settings.executor != "in_process":
        return f"{settings.models_device}, on the nodes of the {settings.executor} cluster"
    return f"{resolve_device(settings.device)} (BANDSCOPE_DEVICE={settings.device})"


def _tagger(name: str, server: ServerOptions) -> str:
    facts = facts_of_server(name, server)
    return f"{server.shown} serves {name} as {facts.model} (software: {facts.software})"


def _models(console: Console, settings: Settings | None) -> str:
    """Verify the models of the package and, with valid settings, the chosen ones; return a message that names them.

    The message also names missing models that the settings do not need.
    """
    chosen = models_here(settings, ANALYSIS_TABLES) if settings else []
    models_path = settings.models_path if settings else Path()
    needed = [model for model in load_inventory().values() if model.embedded or model in chosen]
    require_models(console, needed, models_path)
    finding = f"{', '.join(model.name for model in needed)}: all files have the right SHA-256"
    others = [model for model in load_inventory().values() if model not in needed]
    absent = [model.name for model in others if not _is_here(model, model_folder(model, models_path))]
    if settings and absent:
        finding += f" (missing, and not needed: {', '.join(absent)})"
    return finding


def _is_here(model: Model, folder: Path) -> bool:
    """True if all files of a model are present; their content is not read."""
    pinned = model.unlisted is None or bool(find_pins(model, folder))
    return pinned and all((folder / file.name).is_file() for file in model.files)


def _dagster_home() -> str:
    given = bool(os.environ.get("DAGSTER_HOME"))
    home = dagster_home()
    with tempfile.TemporaryFile(dir=home):
        pass
    return f"{home}" if given else f"{home} (before you start the Dagster UI: export DAGSTER_HOME={home})"
