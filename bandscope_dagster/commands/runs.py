"""Which songs ``bandscope run`` takes and in which ranges, and that only one such command works on a home."""

import fcntl
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dagster as dg

from bandscope_dagster.commands.status import is_called
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.partitions import SONGS_PARTITIONS

LAUNCHER_TAG: Final = "bandscope/launched-by"
LAUNCHER: Final = "bandscope run"
LOCK_NAME: Final = "bandscope-run.lock"


class RunError(BandscopeError):
    """The command cannot start, or was stopped; the message says why."""


@dataclass(frozen=True, slots=True)
class SongRange:
    """Songs that are neighbours in the order of registration, and so can be one run."""

    first: str
    last: str
    count: int


@contextmanager
def only_one(home: Path) -> Generator[None]:
    """Hold the home's lock, so that two commands never work on the same songs.

    Raises:
        RunError: another ``bandscope run`` holds it.
    """
    with (home / LOCK_NAME).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another `bandscope run` is at work on {home}; wait for it, or stop it") from None
        yield


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs of killed commands as failed; call it under the lock, when none of them can be alive."""
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    dead = instance.get_runs(dg.RunsFilter(tags={LAUNCHER_TAG: LAUNCHER}, statuses=unfinished))
    for run in dead:
        instance.report_run_failed(
            run, "The process of this run died; `bandscope run` goes on with its songs."
        )
    return [run.run_id for run in dead]


def unfinished_songs(instance: dg.DagsterInstance, songs: Sequence[str], assets: Collection[str]) -> set[str]:
    """The songs that are not materialized in every one of ``assets``: new, failed or interrupted."""
    unfinished: set[str] = set()
    for asset in assets:
        statuses = instance.get_status_by_partition(dg.AssetKey(asset), songs, SONGS_PARTITIONS) or {}
        unfinished |= {song for song in songs if statuses.get(song) != dg.AssetPartitionStatus.MATERIALIZED}
    return unfinished


def song_ranges(
    songs: Sequence[str], wanted: Collection[str], songs_per_run: int, *, may_pass_over: Collection[str] = ()
) -> list[SongRange]:
    """Cover ``wanted`` with few ranges of ``songs`` (all of them, in order), each of at most ``songs_per_run``.

    Dagster runs contiguous ranges only. A range may pass over songs of ``may_pass_over``, which cost little because
    they are reused; it never takes in any other song.
    """
    ranges: list[SongRange] = []
    current: list[str] = []  # from a wanted song to a wanted song
    gap: list[str] = []

    def close() -> None:
        if current:
            ranges.append(SongRange(current[0], current[-1], len(current)))
        current.clear()
        gap.clear()

    for song in songs:
        if song in wanted:
            if len(current) + len(gap) + 1 > songs_per_run:
                close()
            current += [*gap, song] if current else [song]
            gap.clear()
        elif current and song in may_pass_over:
            gap.append(song)
        else:
            close()
    close()
    return ranges


def matching(songs: Sequence[str], names: dict[str, str], pattern: str | None) -> list[str]:
    """The songs whose id or file name is ``pattern`` or matches it as a glob; all of them where there is none."""
    if pattern is None:
        return list(songs)
    return [song for song in songs if is_called(pattern, song, names.get(song))]
