"""The runs of ``bandscope run --watch``: in threads of its process, beside each other, with the same loaded models."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Final

import dagster as dg

from bandscope_dagster.cli.execute_run import RunReport, run_to_end
from bandscope_dagster.orchestration.pool_turn import MODELS_POOL, runs_at_once
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges

SONGS_AT_ONCE: Final = 4
"""Songs of a run over the oldest songs. With more, a late song waits longer where there is one place; with fewer, the
start of a run, about a second of a core, costs more per song.
"""

LATE_AT_ONCE: Final = 2
"""Songs of a run beside it, over songs that came late. With more, the next late song waits longer."""

RUNS_AT_ONCE: Final = 2

TOGETHER_S: Final = 5.0
"""More than ``SONGS_AT_ONCE`` songs that come within this time came together, as files that are copied do."""

GIVE_WAY_S: Final = 3.0
"""After a run, where there is one place and runs are queued. The daemon looks at its queue every second."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a run in a thread."""

    songs: tuple[str, ...]  # empty for the catalogs
    report: RunReport | Exception  # the exception if Dagster could not record the run

    @property
    def run_id(self) -> str | None:
        """The run, if Dagster has a record of it."""
        return self.report.run_id if isinstance(self.report, RunReport) else None

    @property
    def success(self) -> bool:
        """True if all of the run is done."""
        return isinstance(self.report, RunReport) and self.report.success

    @property
    def problems(self) -> list[str]:
        """The causes if it failed."""
        if isinstance(self.report, RunReport):
            return self.report.problems or ["it could not begin"]
        return [f"{type(self.report).__name__}: {self.report}"]


class WatchRuns:
    """Starts runs in threads, and puts their ends into a queue. Only one thread may call the methods."""

    def __init__(self, instance: dg.DagsterInstance, ends: "SimpleQueue[Ended | None]") -> None:
        self._instance = instance
        self._ends = ends
        self._threads: dict[tuple[str, ...], Thread] = {}
        self._oldest: tuple[str, ...] = ()  # the songs of the run over the oldest songs
        self._late: tuple[str, ...] = ()  # those of the run beside it
        self._late_next = False
        self._recent: list[tuple[str, float]] = []  # new songs, and when they came
        self._backlog: set[str] = set()  # waiting songs that came with many others
        self._gives_way_until = 0.0

    @property
    def going(self) -> int:
        """The number of runs that are not over."""
        return len(self._threads)

    @property
    def refreshing(self) -> bool:
        """True while a run over the catalogs goes on."""
        return () in self._threads

    def start(self, songs: tuple[str, ...], assets: Sequence[str], tags: Mapping[str, str]) -> None:
        """Start a run over ``songs``, or over the catalogs if there are none."""
        thread = Thread(
            target=self._run,
            args=(songs, assets, tags),
            name=f"run-{'songs' if songs else 'catalogs'}",
            daemon=True,
        )
        self._threads[songs] = thread
        thread.start()

    def over(self, songs: tuple[str, ...]) -> None:
        """Note the end of the run over ``songs``, and give its place to others."""
        if thread := self._threads.pop(songs, None):
            thread.join()
        if songs:
            self._gives_way_until = monotonic() + GIVE_WAY_S
        if songs == self._oldest:
            self._oldest = ()
        elif songs == self._late:
            self._late = ()

    @property
    def gives_way_s(self) -> float:
        """Seconds for which the place is left to the daemon's queued runs, if there are any."""
        return max(0.0, self._gives_way_until - monotonic())

    def came(self, songs: Collection[str]) -> None:
        """Note new songs. Many within seconds are a backlog: only the run over the oldest songs takes them."""
        now = monotonic()
        self._recent = [(song, at) for song, at in self._recent if now - at < TOGETHER_S]
        self._recent += ((song, now) for song in songs)
        if len(self._recent) > SONGS_AT_ONCE:
            self._backlog |= {song for song, _ in self._recent}

    def next_songs(
        self, order: Sequence[str], pending: Collection[str], songs_per_run: int
    ) -> tuple[str, ...]:
        """The songs of the next run; empty if there is nothing to start now.

        One run takes the oldest songs. The place beside it is for songs that are no backlog: so a late song never waits
        for a batch. Where there is a place for one run only, the two alternate.
        """
        self._backlog.intersection_update(pending)
        if not pending or (self._oldest and self._late):
            return ()
        places = self._places()
        if bool(self._oldest) + bool(self._late) >= places:
            return ()
        late = set(pending) - self._backlog
        if self._oldest or (places == 1 and self._late_next and late):
            if late:
                self._late_next = False
                self._late = song_ranges(order, late, min(LATE_AT_ONCE, songs_per_run))[0].songs
            return self._late
        self._late_next = True
        self._oldest = song_ranges(order, pending, min(SONGS_AT_ONCE, songs_per_run))[0].songs
        return self._oldest

    def _places(self) -> int:
        """The most runs over songs at once. Queued runs of the daemon, if there are any, get a place."""
        limit = runs_at_once(self._instance, MODELS_POOL)
        places = RUNS_AT_ONCE if limit is None else max(1, min(limit, RUNS_AT_ONCE))
        if not self._instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])):
            return places
        return 0 if places == 1 and self.gives_way_s else 1

    def _run(self, songs: tuple[str, ...], assets: Sequence[str], tags: Mapping[str, str]) -> None:
        report: RunReport | Exception
        try:
            places = SongRange(songs).tags if songs else {}
            report = run_to_end(self._instance, assets, {**places, **tags})
        except Exception as error:
            report = error
        self._ends.put(Ended(songs, report))
