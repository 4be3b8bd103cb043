"""What ``bandscope run`` does, told as it happens: new uploads, batches of songs, then the catalogs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from bandscope_dagster.batches import RANGE_END_TAG, RANGE_START_TAG, REUSE_TAG
from bandscope_dagster.commands.launch import RunReport, launch
from bandscope_dagster.commands.runs import (
    LAUNCHER,
    LAUNCHER_TAG,
    RunError,
    SongRange,
    end_dead_runs,
    matching,
    only_one,
    song_ranges,
    unfinished_songs,
)
from bandscope_dagster.commands.sql import query
from bandscope_dagster.models.store import require
from bandscope_dagster.partitions import SONGS_NAME
from bandscope_dagster.pipeline.uploads import list_uploads, register_uploads
from bandscope_dagster.resources import chosen_models
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.schemas import CATALOG_TABLES, SONG_TABLES

PER_SONG: Final = tuple(table.name for table in SONG_TABLES)
CATALOGS: Final = tuple(table.name for table in CATALOG_TABLES)


def run_songs(
    settings: Settings,
    store: ObjectStore,
    home: Path,
    console: Console,
    progress: Callable[[], AbstractContextManager[Progress]],
    pattern: str | None,
    select: Sequence[str] | None,
    *,
    recompute: bool,
) -> bool:
    """Do the whole of ``bandscope run``; returns whether any run failed.

    Raises:
        RunError: an unknown asset is selected, nothing matches, another command is at work, or this one was
            interrupted.
        ModelFileError: the weights of a model that is needed are missing or wrong; nothing was begun.
    """
    assets = _selected(select)
    require(chosen_models(settings, assets), settings.models_path)
    with only_one(home), dg.DagsterInstance.get() as instance:
        for run_id in end_dead_runs(instance):
            console.print(f"Run {run_id[:8]} had died; its songs are taken up again.", highlight=False)
        listing = list_uploads(store)
        new = register_uploads(instance, listing)
        songs = list(instance.get_dynamic_partitions(SONGS_NAME))
        console.print(
            f"{len(listing.uploads)} uploads, {len(new)} of them new, {listing.ignored} other files ignored;"
            f" {len(songs)} songs in all.",
            highlight=False,
        )
        chosen = set(
            matching(songs, {upload.song_id: upload.filename for upload in listing.uploads}, pattern)
        )
        if not chosen:
            raise RunError(
                f"no song matches {pattern!r}" if pattern else "there are no uploads; `bandscope ingest` some"
            )
        unfinished = set(songs) if recompute else unfinished_songs(instance, songs, assets)
        ranges = song_ranges(
            songs, chosen & unfinished, settings.songs_per_run, may_pass_over=set(songs) - unfinished
        )
        if not ranges:
            console.print("All of these songs are done. `--recompute` computes them again.", highlight=False)
            return False
        reports = [
            *_run_batches(instance, ranges, assets, console, progress, reuse=not recompute),
            _run_catalogs(instance, console),
        ]
        _tell_errors(store, console)
        return not all(report.success for report in reports)


def _selected(select: Sequence[str] | None) -> list[str]:
    unknown = sorted(set(select or ()) - set(PER_SONG))
    if unknown:
        raise RunError(f"unknown assets: {', '.join(unknown)}; those per song are {', '.join(PER_SONG)}")
    return [asset for asset in PER_SONG if select is None or asset in select]


def _run_batches(
    instance: dg.DagsterInstance,
    ranges: Sequence[SongRange],
    assets: Sequence[str],
    console: Console,
    progress: Callable[[], AbstractContextManager[Progress]],
    *,
    reuse: bool,
) -> list[RunReport]:
    reports: list[RunReport] = []
    total = sum(songs.count for songs in ranges)
    with progress() as bars:
        tasks = {asset: bars.add_task(asset, total=total) for asset in assets}

        def on_song(asset: str, _: str) -> None:
            if asset in tasks:
                bars.advance(tasks[asset])

        for songs in ranges:
            tags = {
                LAUNCHER_TAG: LAUNCHER,
                RANGE_START_TAG: songs.first,
                RANGE_END_TAG: songs.last,
                REUSE_TAG: str(reuse).lower(),
            }
            report = launch(instance, assets, tags, on_song)
            if report.interrupted:
                raise RunError("interrupted; what is done stays, and `bandscope run` goes on from there")
            reports.append(report)
            for problem in report.problems:
                console.print(f"[red]Run {report.run_id[:8]}:[/red] {escape(problem)}", highlight=False)
    return reports


def _run_catalogs(instance: dg.DagsterInstance, console: Console) -> RunReport:
    with console.status("catalogs"):
        report = launch(instance, CATALOGS, {LAUNCHER_TAG: LAUNCHER})
    for problem in report.problems:
        console.print(f"[red]Catalogs:[/red] {escape(problem)}", highlight=False)
    return report


def _tell_errors(store: ObjectStore, console: Console) -> None:
    """Say how many songs there are without results: rejections turn nothing red, and would go unseen."""
    count = query(store, "SELECT COUNT(DISTINCT song_id) AS songs FROM song_errors").item()
    if count:
        console.print(
            f"Songs that cannot be used: {count}; `bandscope status` tells which, and why.", highlight=False
        )
