"""``bandscope run``: registers new uploads, runs batches of songs, then the catalogs, and prints the progress."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import are_current
from bandscope_dagster.cli.estimate import print_estimate
from bandscope_dagster.cli.execute_run import RunReport, run_to_end
from bandscope_dagster.cli.interrupts import answered_interrupt
from bandscope_dagster.cli.models import require_models
from bandscope_dagster.cli.other_taggers import print_other_taggers
from bandscope_dagster.cli.report import write_gone_pages
from bandscope_dagster.cli.run_findings import print_lacking, print_left_out, print_statuses
from bandscope_dagster.cli.song_bars import song_bars
from bandscope_dagster.cli.terminal import lasting_console, one_line
from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.deep_check import PAGES
from bandscope_dagster.orchestration.home import only_one, open_records
from bandscope_dagster.orchestration.jobs import CATALOGS, PER_SONG
from bandscope_dagster.orchestration.outdated import find_outdated
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges
from bandscope_dagster.orchestration.resources import models_here
from bandscope_dagster.orchestration.retry_backfill import daemon_is_alive
from bandscope_dagster.orchestration.run_tags import REUSE_TAG, launcher_tags
from bandscope_dagster.orchestration.unfinished import Unfinished, find_unfinished
from bandscope_dagster.orchestration.used_stores import check_not_empty, remember_store
from bandscope_dagster.pipeline.copied_store import check_not_copied
from bandscope_dagster.pipeline.disk_space import check_space
from bandscope_dagster.pipeline.uploads import Listing, list_settled_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.probe import require_writable
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import STEMS
from bandscope_dagster.storage.tables.song_files import SongFiles, known_songs, list_all_files
from bandscope_dagster.tagging.registry import present_from

ALL_DONE: Final = "All of these songs are done. To compute them again: `bandscope run --recompute`."


class RunError(BandscopeError):
    """The command cannot start, or was stopped; the message says why."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The switches of the command."""

    recompute: bool = False
    as_new_songs: bool = False  # also where the store seems to be a copy without times
    check_space: bool = True
    outdated: bool = False  # only songs that other models, parameters or code computed


def run_songs(
    settings: Settings,
    store: ObjectStore,
    home: Path,
    console: Console,
    pattern: str | Collection[str] | None,
    select: str | None,
    options: RunOptions,
) -> bool:
    """Do all of ``bandscope run``; returns True if any run failed.

    Raises:
        StoreLost, StoreCopied, DiskTooSmall, StoreNotWritable: the store is not fit for the run; nothing was started.
        RunError: an unknown asset is selected, no song matches, or the command was interrupted.
        HomeInUse: another ``bandscope run`` uses this home.
        ModelFileError: the weights of a needed model are missing or wrong; no run was started.
    """
    assets = selected(select)
    require_models(console, models_here(settings, assets), settings.models_path)
    with (
        only_one(home),
        open_records() as instance,
        lasting_console(console) as console,
        answered_interrupt(console),
    ):
        for run_id in end_dead_runs(instance, only_command=True):
            console.print(
                f"The process of run {run_id[:8]} is gone; its songs can be computed again.", highlight=False
            )

        listing = _listed(store, settings, console)
        if listing.uploads:
            remember_store(store, home)
        files = list_all_files(store, SOURCES)
        if not options.as_new_songs:
            check_not_copied(files, listing)
        check_not_empty(store, home, listing, files, instance.get_dynamic_partitions(SONGS_NAME))
        new = register_uploads(instance, listing)
        songs = list(instance.get_dynamic_partitions(SONGS_NAME))
        console.print(
            f"{counted(len(listing.uploads), 'upload')}, {len(new)} of them new,"
            f" {counted(listing.ignored, 'other file')} ignored; {counted(len(songs), 'song')} in all.",
            highlight=False,
        )
        if not songs:
            raise RunError("there are no uploads; add some with `bandscope ingest`")
        if isinstance(pattern, str):
            chosen = listing.matching(songs, pattern)
        else:
            chosen = set(songs if pattern is None else pattern)
        run = _Run(settings, store, instance, console, assets, listing, songs, options)
        reports, computed = run.complete(chosen, files)
        recorded = instance.get_materialized_partitions(dg.AssetKey(PAGES))
        failed_pages = write_gone_pages(settings, store, console, chosen, recorded)
        if reports:
            print_statuses(store, console, computed, whole=len(assets) == len(PER_SONG))
        print_other_taggers(store, console, settings.tagger)
        return not all(report.success for report in reports) or failed_pages > 0


def _listed(store: ObjectStore, settings: Settings, console: Console) -> Listing:
    """The uploads, after a wait for files that are still copied; prints what is left out."""

    def on_wait(files: int) -> None:
        message = f"Waiting {settings.settle_s:g} s for new files that may still be copied: {files}"
        console.print(message, highlight=False)

    listing = list_settled_uploads(store, settings.settle_s, on_wait)
    if listing.unsettled:
        message = f"Still being written in uploads/: {listing.unsettled}. Run again when they are whole."
        console.print(message, highlight=False)
    if listing.forgotten:
        forgotten = counted(len(listing.forgotten), "forgotten song")
        console.print(f"Left out: {forgotten}; `bandscope forget --undo` brings them back.", highlight=False)
    for line in listing.left_out:
        console.print(f"[red]Left out:[/red] {escape(one_line(line))}", highlight=False, soft_wrap=True)
    return listing


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of the command, after the uploads are registered."""

    settings: Settings
    store: ObjectStore
    instance: dg.DagsterInstance
    console: Console
    assets: Sequence[str]
    listing: Listing
    songs: Sequence[str]  # all, in the order of registration
    options: RunOptions

    def complete(self, chosen: set[str], files: SongFiles) -> tuple[list[RunReport], set[str]]:
        """Compute what ``chosen`` songs lack, then the catalogs; returns the runs, and the songs that they computed.

        The refresh of the catalogs reads the changed files. If it finds damage that was not known, there is a second
        round, over the songs with that damage. ``files`` is a listing of all sources of a status.
        """
        reports, computed = list[RunReport](), set[str]()
        catalogs = all_catalogs(present_from(self.settings.present_from, self.settings.audible_db))
        recompute = self.options.recompute
        known: set[tuple[str, str]] = set()  # damaged files, as (table, song), before the last round
        for first in (True, False):
            files = files if first else list_all_files(self.store, SOURCES)
            todo = find_unfinished(self.instance, files, self.listing, self.songs, self.assets)
            # After a daemon has died, the songs of its runs stay "in progress" for ever.
            left_alone = todo.in_progress if daemon_is_alive(self.instance) else set[str]()
            damaged = {(table, song) for table, songs in todo.lacking.damaged.items() for song in songs}
            unfinished = set(self.songs) - todo.without_upload if recompute and first else todo.songs
            others = set[str]()  # unfinished too, but not wanted
            if self.options.outdated and first:
                others = unfinished
                unfinished = self._outdated() - todo.without_upload - todo.given_up
            if not first:
                unfinished = todo.songs & {song for _, song in damaged - known}
            known = damaged
            wanted = chosen & unfinished - left_alone
            computed |= wanted
            if first:
                print_left_out(self.console, todo, chosen, left_alone, recompute=recompute)
            print_lacking(self.console, todo, chosen if first else wanted)
            may_pass_over = set(self.songs) - unfinished - others - left_alone - todo.left_out
            per_run = self.settings.songs_per_run
            ranges = song_ranges(self.songs, wanted, per_run, may_pass_over=may_pass_over)
            if ranges:
                require_writable(self.store)
                if self.options.check_space and (
                    warning := check_space(files, self.listing, todo.lacking, wanted, self.settings)
                ):
                    self.console.print(f"[yellow]{escape(warning)}[/yellow]", highlight=False, soft_wrap=True)
                if STEMS.name in self.assets:
                    print_estimate(self.console, self.settings, files, self._to_separate(wanted, todo, first))
                reuse = not (recompute and first)
                reports += _run_batches(
                    self.instance, ranges, self.assets, self.listing.names, self.console, reuse=reuse
                )
            elif not first:
                break
            elif are_current(self.store, catalogs, known_songs(files)):
                told = left_alone | todo.given_up | todo.cannot_complete
                told |= todo.without_upload if recompute else set()
                if not chosen <= told:
                    all_done = "All other songs are done." if told & chosen else ALL_DONE
                    self.console.print(all_done, highlight=False)
                break
            else:
                self.console.print("The catalogs are missing, damaged or out of date.", highlight=False)
                require_writable(self.store)
            reports.append(_run_catalogs(self.instance, self.console))
        return reports, computed

    def _to_separate(self, wanted: set[str], todo: Unfinished, first: bool) -> set[str]:
        """The songs of a round whose stems are computed; a few more if outdated songs keep theirs after all."""
        if first and (self.options.recompute or self.options.outdated):
            return wanted
        return {song for song in wanted if STEMS.name in todo.lacking.tables_of(song)}

    def _outdated(self) -> set[str]:
        """The outdated songs; the runs keep those of their tables that are current."""
        found = find_outdated(self.instance, self.store, self.settings, self.songs, self.assets)
        return found.songs_to_report


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
    names: Mapping[str, str],
    console: Console,
    *,
    reuse: bool,
) -> list[RunReport]:
    reports: list[RunReport] = []
    with song_bars(console, assets, names, sum(len(batch.songs) for batch in ranges)):
        for batch in ranges:
            tags = batch.tags | launcher_tags() | {REUSE_TAG: str(reuse).lower()}
            report = run_to_end(instance, assets, tags)
            if report.interrupted:
                raise KeyboardInterrupt
            reports.append(report)
            for problem in report.problems:
                console.print(f"[red]Run {report.run_id[:8]}:[/red] {escape(problem)}", highlight=False)
    return reports


def _run_catalogs(instance: dg.DagsterInstance, console: Console) -> RunReport:
    with console.status("catalogs"):
        report = run_to_end(instance, CATALOGS, launcher_tags())
    for problem in report.problems:
        console.print(f"[red]Catalogs:[/red] {escape(problem)}", highlight=False)
    return report
