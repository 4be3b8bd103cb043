"""``bandscope run``: registers new uploads, runs batches of songs, then the catalogs, and prints the progress."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.execute_run import RunReport, run_to_end
from bandscope_dagster.cli.models import require_models
from bandscope_dagster.cli.terminal import one_line, progress_bar
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home import only_one
from bandscope_dagster.orchestration.jobs import CATALOGS, PER_SONG
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads, song_states
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges
from bandscope_dagster.orchestration.resources import chosen_models
from bandscope_dagster.orchestration.retry_backfill import daemon_is_alive
from bandscope_dagster.orchestration.run_tags import LAUNCHER, LAUNCHER_TAG, REUSE_TAG
from bandscope_dagster.pipeline.uploads import list_settled_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.find import matching
from bandscope_dagster.songs.query import query
from bandscope_dagster.songs.status import Status
from bandscope_dagster.storage.objects.protocol import ObjectStore

ALL_DONE: Final = "All of these songs are done. To compute them again, add `--recompute`."


class RunError(BandscopeError):
    """The command cannot start, or was stopped; the message says why."""


def run_songs(
    settings: Settings,
    store: ObjectStore,
    home: Path,
    console: Console,
    pattern: str | None,
    select: str | None,
    *,
    recompute: bool,
) -> bool:
    """Do all of ``bandscope run``; returns True if any run failed.

    Raises:
        RunError: an unknown asset is selected, no song matches, or the command was interrupted.
        HomeInUse: another ``bandscope run`` uses this home.
        ModelFileError: the weights of a needed model are missing or wrong; no run was started.
    """
    assets = selected(select)
    require_models(console, chosen_models(settings, assets), settings.models_path)
    with only_one(home), dg.DagsterInstance.get() as instance:
        for run_id in end_dead_runs(instance):
            console.print(
                f"The process of run {run_id[:8]} is gone; its songs can be computed again.", highlight=False
            )

        def on_wait(files: int) -> None:
            message = f"Waiting {settings.settle_s:g} s for new files that may still be copied: {files}"
            console.print(message, highlight=False)

        listing = list_settled_uploads(store, settings.settle_s, on_wait)
        if listing.unsettled:
            message = f"Still being written in uploads/: {listing.unsettled}. Run again when they are whole."
            console.print(message, highlight=False)
        for line in listing.left_out:
            console.print(f"[red]Left out:[/red] {escape(one_line(line))}", highlight=False, soft_wrap=True)
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
                f"no song matches {pattern!r}"
                if pattern
                else "there are no uploads; add some with `bandscope ingest`"
            )
        states = song_states(instance, songs, assets)
        unfinished = set(songs) if recompute else states.unfinished
        # After a daemon has died, the songs of its runs stay "in progress" for ever.
        left_alone = states.in_progress if daemon_is_alive(instance) else set[str]()
        if count := len(chosen & left_alone):
            console.print(
                f"Skipping {count} songs in queued or running runs of the Dagster daemon"
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
            *_run_batches(instance, ranges, assets, console, reuse=not recompute),
            _run_catalogs(instance, console),
        ]
        _print_bad_songs(store, console)
        return not all(report.success for report in reports)


def selected(select: str | None) -> list[str]:
    """The per-song assets to compute, in the order of the graph; all of them if none is named.

    Raises:
        RunError: a name is unknown.
    """
    names = list(PER_SONG) if select is None else select.replace(",", " ").split()
    unknown = sorted(set(names) - set(PER_SONG))
    if unknown:
        raise RunError(f"unknown assets: {', '.join(unknown)}; choose from {', '.join(PER_SONG)}")
    return [asset for asset in PER_SONG if asset in names]


def _run_batches(
    instance: dg.DagsterInstance,
    ranges: Sequence[SongRange],
    assets: Sequence[str],
    console: Console,
    *,
    reuse: bool,
) -> list[RunReport]:
    reports: list[RunReport] = []
    total = sum(len(batch.songs) for batch in ranges)
    with progress_bar(console) as bars:
        tasks = {asset: bars.add_task(asset, total=total) for asset in assets}

        before = 0

        def on_progress(asset: str, songs: int) -> None:
            if asset in tasks:
                bars.update(tasks[asset], completed=before + songs)

        for batch in ranges:
            tags = batch.tags | {LAUNCHER_TAG: LAUNCHER, REUSE_TAG: str(reuse).lower()}
            report = run_to_end(instance, assets, tags, on_progress)
            before += len(batch.songs)
            if report.interrupted:
                raise RunError(
                    "interrupted; finished songs are kept, and `bandscope run` continues with the rest"
                )
            reports.append(report)
            for problem in report.problems:
                console.print(f"[red]Run {report.run_id[:8]}:[/red] {escape(problem)}", highlight=False)
    return reports


def _run_catalogs(instance: dg.DagsterInstance, console: Console) -> RunReport:
    with console.status("catalogs"):
        report = run_to_end(instance, CATALOGS, {LAUNCHER_TAG: LAUNCHER})
    for problem in report.problems:
        console.print(f"[red]Catalogs:[/red] {escape(problem)}", highlight=False)
    return report


def _print_bad_songs(store: ObjectStore, console: Console) -> None:
    """Print how many songs were rejected or failed: a rejection makes nothing red, and would go unseen."""
    found = query(store, "SELECT status, COUNT(*) AS songs FROM song_catalog GROUP BY status")
    counts = dict(found.iter_rows())
    bad = [
        f"{songs} song{'' if songs == 1 else 's'} {status}"
        for status in (Status.REJECTED, Status.FAILED)
        if (songs := counts.get(status, 0))
    ]
    if bad:
        console.print(f"{', '.join(bad)}; run `bandscope status` to see why.", highlight=False)
