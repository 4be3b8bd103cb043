"""``bandscope run --watch``: a process that stays, sees new uploads at once, and keeps the models loaded.

The main thread looks for uploads and starts runs; each run is a thread. A song that failed is computed again after
waits that grow. The next start takes up what a killed process left.
"""

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import are_current
from bandscope_dagster.cli.interrupts import answered_interrupt
from bandscope_dagster.cli.models import require_models
from bandscope_dagster.cli.run import selected
from bandscope_dagster.cli.run_findings import print_lacking, print_left_out
from bandscope_dagster.cli.song_lines import SongLines
from bandscope_dagster.cli.songs_again import ATTEMPTS, SongsAgain
from bandscope_dagster.cli.terminal import lasting_console, one_line
from bandscope_dagster.cli.upload_changes import LOCAL_LOOK_EVERY_S, has_events, watched
from bandscope_dagster.cli.watch_runs import Ended, WatchRuns
from bandscope_dagster.errors import BandscopeError, counted, is_lasting
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.home import only_one
from bandscope_dagster.orchestration.jobs import CATALOGS
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads, song_states
from bandscope_dagster.orchestration.resources import Models, models_here, share_models
from bandscope_dagster.orchestration.retry_backfill import daemon_is_alive
from bandscope_dagster.orchestration.run_tags import REUSE_TAG, launcher_tags
from bandscope_dagster.orchestration.steps import keep_connections_open, step_failures
from bandscope_dagster.orchestration.threaded_instance import threaded_instance
from bandscope_dagster.orchestration.unfinished import find_unfinished
from bandscope_dagster.orchestration.used_stores import check_not_empty, remember_store
from bandscope_dagster.pipeline.copied_store import check_new, check_not_copied
from bandscope_dagster.pipeline.disk_space import Room, check_space
from bandscope_dagster.pipeline.failures import is_disk_full
from bandscope_dagster.pipeline.listing_pace import ListingPace
from bandscope_dagster.pipeline.stop import request_stop
from bandscope_dagster.pipeline.uploads import Listing, list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.probe import StoreNotWritable, require_writable
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.song_files import known_songs, list_all_files
from bandscope_dagster.tagging.registry import present_from

CATALOGS_EVERY_S: Final = 5.0
"""From the end of a refresh to the next one: each takes about a second of a core from the songs."""

CATALOGS_AGAIN_AFTER_S: Final = 60.0  # after a refresh that failed
FAULTS: Final = (OSError, BandscopeError, SQLAlchemyError)  # of the store, or of Dagster's records
FAULT_WAIT_S: Final = 5.0  # until the next attempt after one
START_ATTEMPTS: Final = 5  # then the start fails; a service is started again
STOP_WITHIN_S: Final = 600.0  # a step that is retried waits for its retry, and a long song for its decoder


def watch_uploads(
    settings: Settings,
    store: ObjectStore,
    home: Path,
    console: Console,
    select: str | None,
    *,
    with_space_check: bool = True,
) -> None:
    """Do all of ``bandscope run --watch``, until Ctrl-C or SIGTERM.

    Raises:
        StoreLost, StoreCopied, DiskTooSmall, StoreNotWritable: the store is not fit; nothing was started.
        RunError: an unknown asset is selected.
        HomeInUse: another ``bandscope run`` uses this home.
        ModelFileError: the weights of a needed model are missing or wrong.
    """
    assets = selected(select)
    require_models(console, models_here(settings, assets), settings.models_path)
    with (
        only_one(home),
        threaded_instance() as instance,
        lasting_console(console) as console,
        answered_interrupt(console),
    ):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        keep_connections_open(instance)
        end_dead_runs(instance, only_command=True)
        share_models()
        Models(settings).load_ahead(assets)
        watching = _Watch(settings, store, instance, console, home, assets)
        try:
            for left in reversed(range(START_ATTEMPTS)):
                try:
                    watching.begin(with_space_check=with_space_check)
                    break
                except (OSError, StoreNotWritable, SQLAlchemyError) as error:
                    if not left or isinstance(error.__cause__ or error, PermissionError):
                        raise
                    watching.lines.print_fault("This cannot begin now", error)
                    sleep(FAULT_WAIT_S)
            watching.go_on()
        except KeyboardInterrupt:
            watching.end()


class _Watch:
    """The state of the command; only the main thread uses it."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        instance: dg.DagsterInstance,
        console: Console,
        home: Path,
        assets: Sequence[str],
    ) -> None:
        self._settings, self._store, self._instance = settings, store, instance
        self._console, self._home, self._assets = console, home, assets
        self._ends: SimpleQueue[Ended | None] = SimpleQueue()  # None: uploads may have changed
        self._runs = WatchRuns(instance, self._ends)
        self._pace = ListingPace(LOCAL_LOOK_EVERY_S if has_events(store) else settings.watch_every_s)
        self._listing = Listing([], 0)
        self._order: list[str] = []  # all songs, in the order of registration
        self._names: dict[str, str] = {}
        self.lines = SongLines(console, self._names)
        self._pending: set[str] = set()  # songs without a result and without a run
        self._again = SongsAgain()
        self._outdated = False  # True if the catalogs are
        self._refresh_from = 0.0  # when the next refresh of the catalogs may begin

    def begin(self, *, with_space_check: bool) -> None:
        """Take up what is there: songs that earlier runs did not finish, and files that are missing or damaged."""
        require_writable(self._store)
        listing = self._listing = list_uploads(self._store, self._settings.settle_s)
        files = list_all_files(self._store, SOURCES)
        check_not_copied(files, listing)
        known = self._instance.get_dynamic_partitions(SONGS_NAME)
        check_not_empty(self._store, self._home, listing, files, known)
        self._register()
        todo = find_unfinished(self._instance, files, listing, self._order, self._assets)
        in_runs = todo.in_progress if daemon_is_alive(self._instance) else set[str]()
        every = set(self._order)
        print_left_out(self._console, todo, every, in_runs, recompute=False)
        print_lacking(self._console, todo, every)
        self._pending |= todo.songs - in_runs
        self._runs.came(self._pending)
        wanted = self._pending if with_space_check else ()
        if warning := check_space(files, listing, todo.lacking, wanted, self._settings):
            self._console.print(f"[yellow]{escape(warning)}[/yellow]", highlight=False, soft_wrap=True)
        self.lines.saw(self._pending)
        rules = present_from(self._settings.present_from, self._settings.audible_db)
        self._outdated = not are_current(self._store, all_catalogs(rules), known_songs(files))
        self._console.print(
            f"{counted(len(self._order), 'song')}, {len(self._pending)} of them to compute."
            f" Watching {escape(self._store.url)}/uploads; Ctrl-C ends.",
            highlight=False,
            soft_wrap=True,
        )

    def go_on(self) -> None:
        """Look for uploads, and start runs, until an interrupt."""
        with watched(self._store, lambda: self._ends.put(None)), self.lines.shown():
            while True:
                try:
                    self._start_runs()
                    if ended := self._wait():
                        self._take(ended)
                    if not self._pace.due_in:
                        self._look()
                except FAULTS as error:
                    self.lines.print_fault("This cannot go on now", error)
                    sleep(FAULT_WAIT_S)

    def end(self) -> None:
        """Ask all runs to stop, wait for them, and say what is left."""
        request_stop()
        until = monotonic() + STOP_WITHIN_S
        while self._runs.going and monotonic() < until:
            try:
                ended = self._ends.get(timeout=1.0)
            except Empty:
                continue
            if ended is not None:
                self._runs.over(ended.songs)
        left = f" {counted(self._runs.going, 'run')} did not end in time." if self._runs.going else ""
        text = f"Stopped. Finished songs are kept, and the next start continues with the rest.{left}"
        self._console.print(text, highlight=False)

    def _wait(self) -> Ended | None:
        """The next end of a run; None when uploads may have changed, or something is due."""
        now = monotonic()
        waits = [self._pace.due_in, self._again.next_in_s]
        if self._pending and (gives_way_s := self._runs.gives_way_s):
            waits.append(gives_way_s)
        if self._outdated and not self._runs.refreshing:
            waits.append(self._refresh_from - now)
        try:
            ended = self._ends.get(timeout=max(0.0, min(waits)))
        except Empty:
            return None
        if ended is None:
            self._pace.hurry()
        return ended

    def _look(self) -> None:
        """List the uploads and register new ones. After a fault of the store, the next look comes later."""
        try:
            with self._pace.measured():
                listing = list_uploads(self._store, self._settings.settle_s)
                check_new(self._store, listing, self._order)
                self._listing = listing
                new = self._register()
        except FAULTS as error:
            self.lines.print_fault("New uploads cannot be taken now", error)
            self._pace.rest(FAULT_WAIT_S)
            return
        self.lines.faults_are_over()
        self.lines.saw(new)
        self._pending.update(new)
        self._runs.came(new)
        for line in self._listing.left_out:
            self.lines.print_once(f"[red]Left out:[/red] {escape(one_line(line))}")
        if self._listing.unsettled:
            self._pace.hurry(self._settings.settle_s)

    def _register(self) -> list[str]:
        """Register new uploads; returns their songs."""
        if self._listing.uploads:
            remember_store(self._store, self._home)
        register_uploads(self._instance, self._listing)
        # After a fault, the next call finds what this one has registered.
        before = set(self._order)
        self._order = list(self._instance.get_dynamic_partitions(SONGS_NAME))
        by_song = self._listing.by_song
        # `bandscope forget` may have removed some.
        self._pending.intersection_update(self._order)
        self._again.keep(self._order)
        self._names.update(self._listing.names)
        return [song for song in self._order if song not in before and song in by_song]

    def _start_runs(self) -> None:
        if self._again.next_in_s <= 0:
            room, uploads = Room(self._store, self._settings), self._listing.by_song
            due, wait = self._again.take(lambda song: song not in uploads or room.take([uploads[song]]))
            self._pending.update(due)
            if wait:
                self.lines.print_full(wait)
        tags = launcher_tags()
        while songs := self._runs.next_songs(self._order, self._pending, self._settings.songs_per_run):
            self._pending.difference_update(songs)
            self._runs.start(songs, self._assets, tags | {REUSE_TAG: "true"})
        if self._outdated and not self._runs.refreshing and self._refresh_from <= monotonic():
            self._outdated = False
            self._runs.start((), CATALOGS, tags)

    def _take(self, ended: Ended) -> None:
        """Note the end of a run; its songs that are not done are computed again later."""
        self._runs.over(ended.songs)
        self.lines.ended(ended.songs)
        failed = not ended.success
        named = self._named(ended) if failed else {}
        if failed:
            self.lines.print_problems(ended.run_id, ended.problems, named)
        if not ended.songs:
            self._outdated = self._outdated or failed
            self._refresh_from = monotonic() + (CATALOGS_AGAIN_AFTER_S if failed else CATALOGS_EVERY_S)
            return
        self._outdated = True
        causes = self._causes(ended, named) if failed else {}
        self._again.done(set(ended.songs) - causes.keys())
        for song, cause in causes.items():
            if not self._again.failed(song, disk_was_full=is_disk_full(cause)):
                self.lines.print_given_up(song, ATTEMPTS)

    def _named(self, ended: Ended) -> Mapping[str, str]:
        """Song → cause, of the songs that steps of the run reported as failed."""
        try:
            return step_failures(self._instance, ended.run_id).songs if ended.run_id else {}
        except SQLAlchemyError:
            return {}

    def _causes(self, ended: Ended, named: Mapping[str, str]) -> dict[str, str]:
        """Song → cause, of the songs of a failed run that another may complete; ``named`` are those of its steps."""
        of_run = "\n".join(ended.problems)
        try:
            unfinished = song_states(self._instance, ended.songs, self._assets).unfinished
        except SQLAlchemyError:
            return dict.fromkeys(ended.songs, of_run)
        if self._listing.is_complete:
            unfinished.intersection_update(self._listing.by_song)
        found = {song: named.get(song, of_run) for song in ended.songs if song in unfinished}
        return {song: cause for song, cause in found.items() if not is_lasting(cause)}
