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

RUNS_AT_ONCE: Final = 2

GIVE_WAY_S: Final = 3.0
"""After a run, where there is one place and runs are queued. The daemon looks at its queue every second."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a run in a thread."""

    songs: tuple[str, ...]  # empty for the catalogs
    report: RunReport | Exception  # the exception if Dagster could not record the run


class WatchRuns:
    """Starts runs in threads, and puts their ends into a queue. Only one thread may call the methods."""

    def __init__(self, instance: dg.DagsterInstance, ends: "SimpleQueue[Ended | None]") -> None:
        self._instance = instance
        self._ends = ends
        self._threads: dict[tuple[str, ...], Thread] = {}
        self._oldest: tuple[str, ...] = ()  # the songs of the run over the oldest songs
        self._newest: tuple[str, ...] = ()
        self._newest_next = False
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
        """Note the end of the run over ``songs``."""
        self._threads.pop(songs).join()
        self.forget(songs)

    @property
    def gives_way_s(self) -> float:
        """Seconds for which the place is left to the daemon's queued runs, if there are any."""
        return max(0.0, self._gives_way_until - monotonic())

    def forget(self, songs: tuple[str, ...]) -> None:
        """Give the place of these songs to others."""
        if songs:
            self._gives_way_until = monotonic() + GIVE_WAY_S
        if songs == self._oldest:
            self._oldest = ()
        elif songs == self._newest:
            self._newest = ()

    def next_songs(
        self, order: Sequence[str], pending: Collection[str], songs_per_run: int
    ) -> tuple[str, ...]:
        """The songs of the next run; empty if there is nothing to start now.

        One run takes the oldest songs, so that none waits for ever. Beside it another takes the newest song, which so
        never waits for a batch. Where there is a place for one run only, they alternate.
        """
        if not pending or (self._oldest and self._newest):
            return ()
        places = self._places()
        if bool(self._oldest) + bool(self._newest) >= places:
            return ()
        newest = bool(self._oldest) or (places == 1 and self._newest_next)
        self._newest_next = not newest
        if newest:
            self._newest = (next(song for song in reversed(order) if song in pending),)
            return self._newest
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
