"""Songs whose run never began, died with its process or found the disk full: they are requested again, ever later.

A song that its step reported as failed for another cause is not lost: it waits for people, or for `bandscope retry`. A
new request over songs for which the disk was full waits until the disk has room for them. Dagster itself may
repeat a run (run retries), and so may people; the songs of such a run belong to its successor. If Dagster has not
repeated a run by the time it is due here, Dagster's announcement is withdrawn, so that no run gets two successors.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.partitions import song_states
from bandscope_dagster.orchestration.ranges import SongRange, song_ranges
from bandscope_dagster.orchestration.run_tags import (
    ATTEMPT_TAG,
    FAILURE_REASON_TAG,
    PARENT_RUN_TAG,
    RESUMES_TAG,
    REUSE_TAG,
    STEP_FAILED,
    WILL_RETRY_TAG,
    is_of_command,
    is_over_songs,
    run_key,
    search_tags,
)
from bandscope_dagster.orchestration.steps import step_failures
from bandscope_dagster.pipeline.disk_space import Room
from bandscope_dagster.pipeline.failures import is_disk_full
from bandscope_dagster.pipeline.uploads import Upload
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore

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
    left_to_dagster: bool  # Dagster announced that it repeats the run, and has not done so yet

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
        return f"{begin} requested again {'in the next tick' if self.left_to_dagster else 'now'}"


def lost_requests(
    instance: dg.DagsterInstance,
    songs: Sequence[str],
    by_song: Mapping[str, Upload],
    since: float,
    limit: int,
    *,
    store: ObjectStore,
    settings: Settings,
) -> tuple[list[tuple[SongRange, dg.RunRequest]], list[str], float]:
    """The runs over at most ``limit`` lost songs that are due, what to tell, and the time for the next ``since``.

    ``songs`` are all songs in the order of registration, and ``by_song`` the uploads. Of runs that failed until
    ``since`` (seconds since 1970), nothing is requested any more.
    """
    requests: list[tuple[SongRange, dg.RunRequest]] = []
    told: list[str] = []
    now, settled, all_settled = time.time(), since, True
    taken: set[str] = set()
    room = Room(store, settings)
    for lost, failed_at in find_lost(instance, songs, by_song, since):
        if lost is not None:
            is_due = not lost.given_up and now >= lost.due
            wanted = [song for song in lost.songs if song not in taken]
            fits = not taken or len(taken) + len(lost.songs) <= limit
            has_room = lost.given_up or room.take(by_song[song] for song in wanted) or not lost.disk_was_full
            told.append(lost.told(now, has_room=has_room))
            all_settled = all_settled and lost.given_up
            if is_due and fits and has_room and lost.left_to_dagster:
                # After the daemon was down, its first look at failed runs and this tick come at the same time, and both
                # would repeat the run. A tick later, Dagster's run exists or will never come.
                instance.add_run_tags(lost.run_id, {WILL_RETRY_TAG: "false"})
            elif is_due and fits and has_room:
                taken.update(wanted)
                parts = song_ranges(songs, wanted, settings.songs_per_run)
                requests += [(part, _resuming(lost, part, by_song)) for part in parts]
        if all_settled:
            settled = failed_at
    return requests, told, settled


def _resuming(lost: LostSongs, part: SongRange, by_song: Mapping[str, Upload]) -> dg.RunRequest:
    tags = {REUSE_TAG: "true", RESUMES_TAG: lost.run_id, ATTEMPT_TAG: str(lost.attempt + 1)}
    owners = (by_song[song].owner for song in part.songs)
    return dg.RunRequest(
        run_key=run_key(lost.run_id, part.songs),
        tags=part.tags | search_tags(part.songs, owners) | tags,
        asset_selection=[dg.AssetKey(asset) for asset in lost.assets],
    )


@dataclass(frozen=True, slots=True)
class _Ending:
    """The end of a failed run by its events, which do not change any more."""

    died: bool  # the run did not end by itself; otherwise a step reported its failed songs
    planned: frozenset[str]  # its songs; only those for which the disk was full, if it did not die
    assets: frozenset[str]


_ENDINGS: Final = dict[
    str, _Ending
]()  # by run: a tick comes every few seconds, and the runs may wait for hours


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
    looked_at = {record.dagster_run.run_id for record in records}
    for run_id in _ENDINGS.keys() - looked_at:
        _ENDINGS.pop(run_id, None)
    for record in records:
        run = record.dagster_run
        found = None
        if is_over_songs(run) and not _has_successor(instance, run):
            found = _lost_by(instance, record, songs, uploaded)
        yield found, record.update_timestamp.timestamp()


def _has_successor(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """True if another run repeats this one: by Dagster, by a person, or requested after an earlier tick."""
    return any(
        instance.get_runs(dg.RunsFilter(tags={tag: run.run_id}), limit=1)
        for tag in (PARENT_RUN_TAG, RESUMES_TAG)
    )


def _lost_by(
    instance: dg.DagsterInstance, record: dg.RunRecord, songs: Sequence[str], uploaded: Collection[str]
) -> LostSongs | None:
    """The songs of a run that are still without a result; None if there are none."""
    run = record.dagster_run
    ending = _ENDINGS.get(run.run_id) or _ending(instance, run)
    _ENDINGS[run.run_id] = ending
    wanted = [song for song in songs if song in ending.planned and song in uploaded]
    computed = [asset for asset in PER_SONG if asset in ending.assets]
    if not wanted or not computed:
        return None
    states = song_states(instance, wanted, computed)
    left = [song for song in wanted if song in states.unfinished - states.in_progress]
    attempt = int(run.tags.get(ATTEMPT_TAG, "1"))
    ended = record.end_time or record.update_timestamp.timestamp()
    due = ended + FIRST_WAIT_S * 2 ** (attempt - 1)
    left_to_dagster = run.tags.get(WILL_RETRY_TAG) == "true"
    return (
        LostSongs(run.run_id, left, computed, attempt, due, not ending.died, left_to_dagster)
        if left
        else None
    )


def _ending(instance: dg.DagsterInstance, run: dg.DagsterRun) -> _Ending:
    died, without_room = True, set[str]()
    if run.tags.get(FAILURE_REASON_TAG) == STEP_FAILED:
        died = False
        if not is_of_command(run):  # there, a person sees the full disk, or has pressed Ctrl-C
            failures = step_failures(instance, run.run_id)
            died = failures.interrupted
            without_room = {song for song, cause in failures.songs.items() if is_disk_full(cause)}
    planned: set[str] = set()
    assets: set[str] = set()
    if died or without_room:
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED):
            data = entry.dagster_event and entry.dagster_event.asset_materialization_planned_data
            if data and data.partition is not None and (died or data.partition in without_room):
                planned.add(data.partition)
                assets.add(data.asset_key.to_user_string())
    return _Ending(died, frozenset(planned), frozenset(assets))
