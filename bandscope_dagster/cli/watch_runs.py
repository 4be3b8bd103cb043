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

TOGETHER_S: Final = 2.0
"""Songs that come within this time of each other came together, as files that are copied do. With 5 s, a song that came
just after a batch of 32 waited for all of it, 137 s (benchmarks/latency.py).
"""

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
        self._first: tuple[str, ...] = ()  # the songs of the run in the first place
        self._beside: tuple[str, ...] = ()  # those of the run beside it
        self._late_next = False
        self._recent: list[tuple[str, float]] = []  # new songs, and when they came
        self._company: dict[str, int] = {}  # waiting song → the songs that came together with it, itself too
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
        if songs == self._first:
            self._first = ()
        elif songs == self._beside:
            self._beside = ()

    @property
    def gives_way_s(self) -> float:
        """Seconds for which the place is left to the daemon's queued runs, if there are any."""
        return max(0.0, self._gives_way_until - monotonic())

    def came(self, songs: Collection[str]) -> None:
        """Note new songs."""
        now = monotonic()
        self._recent = [(song, at) for song, at in self._recent if now - at < TOGETHER_S]
        for song, _ in self._recent:
            if song in self._company:
                self._company[song] += len(songs)
        self._recent += ((song, now) for song in songs)
        self._company |= dict.fromkeys(songs, len(self._recent))

    def next_songs(
        self, order: Sequence[str], pending: Collection[str], songs_per_run: int
    ) -> tuple[str, ...]:
        """The songs of the next run; empty if there is nothing to start now.

        The run in the first place takes the oldest songs. The place beside it is for late songs only, so that they do
        not wait for a batch. If it is taken, too small for those that wait, or there is none, every other turn of the
        first place is theirs too.
        """
        self._company = {song: self._company.get(song, 1) for song in pending}
        places = self._places() if pending and not (self._first and self._beside) else 0
        if bool(self._first) + bool(self._beside) >= places:
            return ()
        late = self._late(order)
        if self._first:
            if late:
                self._beside = song_ranges(order, late, min(LATE_AT_ONCE, songs_per_run))[0].songs
            return self._beside
        if late and self._late_next and (places == 1 or self._beside or len(late) > LATE_AT_ONCE):
            self._late_next = False
            self._first = song_ranges(order, late, min(LATE_AT_ONCE, songs_per_run))[0].songs
        else:
            self._late_next = True
            self._first = song_ranges(order, pending, min(SONGS_AT_ONCE, songs_per_run))[0].songs
        return self._first

    def _late(self, order: Sequence[str]) -> set[str]:
        """The waiting songs that came with few others, or with less than half as many as the oldest one."""
        of_oldest = next((self._company[song] for song in order if song in self._company), 0)
        return {
            song
            for song, company in self._company.items()
            if company <= SONGS_AT_ONCE or 2 * company < of_oldest
        }

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
