"""What ``bandscope run`` does, told as it happens: new uploads, batches of songs, then the catalogs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from bandscope_dagster.cli.execute_run import RunReport, launch
from bandscope_dagster.cli.models import require_models
from bandscope_dagster.cli.run_selection import RunError, matching
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home_lock import only_one
from bandscope_dagster.orchestration.jobs import CATALOGS, PER_SONG
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads, song_states
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges
from bandscope_dagster.orchestration.resources import chosen_models
from bandscope_dagster.orchestration.retry import daemon_is_alive
from bandscope_dagster.orchestration.song_events import LAUNCHER, LAUNCHER_TAG, REUSE_TAG
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.query import query
from bandscope_dagster.storage.objects.protocol import ObjectStore

ALL_DONE: Final = "All of these songs are done. `--recompute` computes them again."


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
        RunError: an unknown asset is selected, nothing matches, or this command was interrupted.
        HomeInUse: another such command is at work.
        ModelFileError: the weights of a model that is needed are missing or wrong; nothing was begun.
    """
    assets = selected(select)
    require_models(console, chosen_models(settings, assets), settings.models_path)
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
        states = song_states(instance, songs, assets)
        unfinished = set(songs) if recompute else states.unfinished
        # What a run was doing when its daemon died stays "in progress" for ever: only a living one is waited for.
        left_alone = states.in_progress if daemon_is_alive(instance) else set[str]()
        if count := len(chosen & left_alone):
            console.print(
                f"{count} of them are left to runs of the Dagster daemon that are queued or running"
                " (if such a run is dead, terminate it in the UI).",
                highlight=False,
            )
        ranges = song_ranges(
            songs,
            chosen & unfinished - left_alone,
            settings.songs_per_run,
            may_pass_over=set(songs) - unfinished - left_alone,
        )
        if not ranges:
            console.print("All other songs are done." if count else ALL_DONE, highlight=False)
            return False
        reports = [
            *_run_batches(instance, ranges, assets, console, progress, reuse=not recompute),
            _run_catalogs(instance, console),
        ]
        _tell_errors(store, console)
        return not all(report.success for report in reports)


def selected(select: Sequence[str] | None) -> list[str]:
    """The per-song assets to compute, in the order of the graph; all of them where none is named.

    Raises:
        RunError: one of them is unknown.
    """
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
    total = sum(len(batch.songs) for batch in ranges)
    with progress() as bars:
        tasks = {asset: bars.add_task(asset, total=total) for asset in assets}

        before = 0

        def on_progress(asset: str, songs: int) -> None:
            if asset in tasks:
                bars.update(tasks[asset], completed=before + songs)

        for batch in ranges:
            tags = batch.tags | {LAUNCHER_TAG: LAUNCHER, REUSE_TAG: str(reuse).lower()}
            report = launch(instance, assets, tags, on_progress)
            before += len(batch.songs)
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
