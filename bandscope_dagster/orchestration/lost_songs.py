"""Songs whose run never began, died with its process or found the disk full: they are requested again, ever later.

A song that its step reported as failed for another cause is not lost: it waits for people, or for `bandscope retry`. A
new request over songs for which the disk was full waits until the disk has room for them. Dagster itself may
repeat a run (run retries), and so may people; the songs of such a run belong to its successor.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.partitions import song_states
from bandscope_dagster.orchestration.run_tags import (
    ATTEMPT_TAG,
    FAILURE_REASON_TAG,
    LAUNCHER_TAG,
    PARENT_RUN_TAG,
    RESUMES_TAG,
    STEP_FAILED,
    is_over_songs,
)
from bandscope_dagster.orchestration.steps import INTERRUPTED, failed_songs, step_failures
from bandscope_dagster.pipeline.failures import is_disk_full

FIRST_WAIT_S: Final = 30.0
"""From the end of the first run to the next request; doubles each time. Dagster's own retry comes in this time."""

ATTEMPTS: Final = 6
"""Runs for the same songs, the first included. The last comes 16 minutes after the first, plus the time of the runs."""

LOOKED_AT: Final = 50  # failed runs in a tick, the oldest first; each costs up to 0.1 s


@dataclass(frozen=True, slots=True)
class LostSongs:
    """The songs that a run left without a result as it died or the disk was full, and that no other run computes."""

    run_id: str
    songs: Sequence[str]  # in the order of registration; never empty
    assets: Sequence[str]  # the assets of the run, for which its songs are requested again
    attempt: int  # the number of this run, from 1
    due: float  # when the songs are requested again (seconds since 1970)
    disk_was_full: bool  # the run did not die

    @property
    def given_up(self) -> bool:
        """True if no further run is requested."""
        return self.attempt >= ATTEMPTS

    def told(self, now: float, *, has_room: bool = True) -> str:
        """The state of these songs at the time ``now``, for the log of a tick. Without room on the disk, they wait."""
        songs = f"{counted(len(self.songs), 'song')} of run {self.run_id[:8]}"
        how = "which found the disk full" if self.disk_was_full else "which died"
        begin = f"{songs}, {how} (run {self.attempt} of {ATTEMPTS}),"
        begin += " is" if len(self.songs) == 1 else " are"
        if self.given_up:
            return f"{begin} not requested again: fix the cause, then use `bandscope retry`"
        if not has_room:
            return f"{begin} requested again when the disk of the store has room for them: make room"
        if now < self.due:
            return f"{begin} requested again at {datetime.fromtimestamp(self.due, UTC):%H:%M:%S} UTC"
        return f"{begin} requested again now"


def find_lost(
    instance: dg.DagsterInstance, songs: Sequence[str], uploaded: Collection[str], since: float
) -> Iterator[tuple[LostSongs | None, float]]:
    """For each run that failed after ``since`` (seconds since 1970), the oldest first: what it lost, and its time.

    ``songs`` are all songs in the order of registration. Songs that are not ``uploaded`` are not lost: they would fail.
    """
    records = instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE], updated_after=datetime.fromtimestamp(since, UTC)
        ),
        limit=LOOKED_AT,
        order_by="update_timestamp",
        ascending=True,
    )
    for record in records:
        run = record.dagster_run
        found = None
        if is_over_songs(run) and not _has_successor(instance, run):
            died = _has_died(instance, run)
            without_room = None if died else _without_room(instance, run)
            if died or without_room:
                found = _lost_by(instance, record, songs, uploaded, without_room)
        yield found, record.update_timestamp.timestamp()


def _has_died(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """True if the run did not end by itself; false if a step reported its failed songs."""
    if run.tags.get(FAILURE_REASON_TAG) != STEP_FAILED:
        return True
    if LAUNCHER_TAG in run.tags:  # a person pressed Ctrl-C
        return False
    return any(description.startswith(INTERRUPTED) for description, _ in step_failures(instance, run.run_id))


def _without_room(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The songs of a failed run for which the disk was full. A person sees it who started `bandscope run`."""
    causes = {} if LAUNCHER_TAG in run.tags else failed_songs(instance, run.run_id)
    return {song for song, cause in causes.items() if is_disk_full(cause)}


def _has_successor(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """True if another run repeats this one: by Dagster, by a person, or requested after an earlier tick."""
    return any(
        instance.get_runs(dg.RunsFilter(tags={tag: run.run_id}), limit=1)
        for tag in (PARENT_RUN_TAG, RESUMES_TAG)
    )


def _lost_by(
    instance: dg.DagsterInstance,
    record: dg.RunRecord,
    songs: Sequence[str],
    uploaded: Collection[str],
    without_room: Collection[str] | None,
) -> LostSongs | None:
    """The songs of a run that are still without a result; None if there are none.

    Only those ``without_room`` count, if it is not None: the run did not die.
    """
    run = record.dagster_run
    planned: set[str] = set()
    assets: set[str] = set()
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED):
        data = entry.dagster_event and entry.dagster_event.asset_materialization_planned_data
        if data and data.partition is not None and (without_room is None or data.partition in without_room):
            planned.add(data.partition)
            assets.add(data.asset_key.to_user_string())
    wanted = [song for song in songs if song in planned and song in uploaded]
    computed = [asset for asset in PER_SONG if asset in assets]
    if not wanted or not computed:
        return None
    states = song_states(instance, wanted, computed)
    left = [song for song in wanted if song in states.unfinished - states.in_progress]
    attempt = int(run.tags.get(ATTEMPT_TAG, "1"))
    ended = record.end_time or record.update_timestamp.timestamp()
    due = ended + FIRST_WAIT_S * 2 ** (attempt - 1)
    return LostSongs(run.run_id, left, computed, attempt, due, without_room is not None) if left else None
