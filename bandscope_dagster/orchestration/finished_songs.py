"""The songs that runs have finished, in any process, from Dagster's event log.

A run finishes a song when it reports the last of the per-song tables that it was to make for it. The songs that a run
could not finish are known when it ends: its steps may be retried until then. A run that dies finishes nothing more; its
other songs belong to the run that takes them up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import dagster as dg

from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.lost_songs import ATTEMPTS
from bandscope_dagster.orchestration.result_cursor import Cursor, CursorError, Part, Position, Progress
from bandscope_dagster.orchestration.run_tags import (
    ATTEMPT_TAG,
    FAILURE_REASON_TAG,
    STEP_FAILED,
    WILL_RETRY_TAG,
    is_over_songs,
)
from bandscope_dagster.orchestration.steps import step_failures

PAGE: Final = 500  # events in one query
CAUSE_CHARACTERS: Final = 2000

_STORED: Final = dg.DagsterEventType.ASSET_MATERIALIZATION
_PLANNED: Final = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_FAILED: Final = dg.DagsterEventType.RUN_FAILURE


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of one song in one run."""

    run_id: str
    song_id: str
    at: float  # seconds since 1970
    tables: tuple[str, ...]  # the per-song tables that the run was to make, in the order of the graph
    error: str | None  # the cause if the run could not make them; a rejected song has none here
    cursor: str = ""  # after it


def newest(instance: dg.DagsterInstance) -> Cursor:
    """The cursor after all that has happened until now."""
    stored = instance.get_asset_event_summary_records(_STORED, limit=1)
    failed = instance.fetch_run_status_changes(_FAILED, limit=1).records
    return Cursor(
        Position(stored[0].storage_id if stored else 0), Position(failed[0].storage_id if failed else 0)
    )


class FinishedSongs:
    """A reader of finished songs. Each song of a run comes once, after ``cursor``."""

    def __init__(self, instance: dg.DagsterInstance, cursor: Cursor) -> None:
        """Begin after ``cursor``.

        Raises:
            CursorError: the event log ends before the cursor.
        """
        end = newest(instance)
        if cursor.finished.last > end.finished.last or cursor.last_failed > end.failed.last:
            raise CursorError(
                f"The cursor {cursor} is beyond {end}, the end of the records in {instance.root_directory}. It is of"
                " another DAGSTER_HOME, or runs were deleted there: leave the cursor out."
            )
        self._instance = instance
        in_order = instance.event_log_storage.is_run_sharded  # SQLite: one process writes at a time
        self._stored = Progress(cursor.finished, in_order=in_order)
        self._failed = Progress(cursor.failed, in_order=in_order)
        self._part = cursor.part
        self._tables = lru_cache(maxsize=256)(self._tables_of)

    @property
    def cursor(self) -> Cursor:
        """The cursor after all songs that were read and used."""
        return Cursor(self._stored.position, self._failed.position, self._part)

    def new(self) -> Iterator[Finished]:
        """The songs that were finished since the last call, in the order of time.

        A song counts as read when the next one is asked for: after an error in between, it comes again.
        """
        # Each stream moves its own part of the cursor, and only past a song when the next one is asked for.
        from_stored, from_failed = self._new_stored(), self._new_failed()
        stored, failed = next(from_stored, None), next(from_failed, None)
        while stored or failed:
            if failed is None or (stored is not None and stored[0].at <= failed[0].at):
                assert stored is not None
                song, moved = stored
                yield replace(song, cursor=str(Cursor(moved.position, self._failed.position, self._part)))
                stored = next(from_stored, None)
            else:
                song, moved, part = failed
                yield replace(song, cursor=str(Cursor(self._stored.position, moved.position, part)))
                failed = next(from_failed, None)

    def _new_stored(self) -> Iterator[tuple[Finished, Progress]]:
        after = self._stored.position.settled
        while True:
            page = self._instance.get_asset_event_summary_records(
                _STORED, after_storage_id=after, limit=PAGE, ascending=True
            )
            for event in page:
                after, song_id = event.storage_id, event.partition
                if not self._stored.is_new(after):
                    self._stored = self._stored.after(after, event.timestamp)
                    continue
                tables = self._tables(event.run_id or "")
                is_last = bool(tables) and event.asset_key == dg.AssetKey(tables[-1])
                moved = self._stored.after(after, event.timestamp, again=not is_last)
                if is_last and song_id is not None:
                    yield Finished(event.run_id or "", song_id, event.timestamp, tables, None), moved
                self._stored = moved
            if len(page) < PAGE:
                return

    def _new_failed(self) -> Iterator[tuple[Finished, Progress, Part | None]]:
        if self._part is not None:
            for record in self._failed_runs(storage_ids=[self._part.event]):
                yield from self._songs_of(record)
            self._part = None  # also if someone deleted the run
        after = self._failed.position.settled
        while True:
            page = self._failed_runs(after_storage_id=after)
            for record in page:
                after = record.storage_id
                if self._failed.is_new(after):
                    yield from self._songs_of(record)
                else:
                    self._failed = self._failed.after(after, record.timestamp)
            if len(page) < PAGE:
                return

    def _failed_runs(self, **wanted: Any) -> Sequence[dg.EventLogRecord]:
        chosen = dg.RunStatusChangeRecordsFilter(_FAILED, **wanted)
        return self._instance.fetch_run_status_changes(chosen, PAGE, ascending=True).records

    def _songs_of(self, record: dg.EventLogRecord) -> Iterator[tuple[Finished, Progress, Part | None]]:
        """The failed songs of one run that were not read yet."""
        event, run_id = record.storage_id, record.run_id
        moved = self._failed.after(event, record.timestamp, again=False)
        tables = self._tables(run_id)
        causes = list(unfinished_songs(self._instance, run_id, tables).items())
        read = self._part.songs if self._part is not None else 0
        for number, (song_id, cause) in enumerate(causes[read:], read + 1):
            is_last = number == len(causes)
            failed, part = (moved, None) if is_last else (self._failed, Part(event, number))
            yield Finished(run_id, song_id, record.timestamp, tables, cause), failed, part
            self._failed, self._part = failed, part
        self._failed, self._part = moved, None

    def _tables_of(self, run_id: str) -> tuple[str, ...]:
        planned = self._instance.get_asset_partitions_for_run(run_id, _PLANNED) if run_id else {}
        return tuple(table for table in PER_SONG if dg.AssetKey(table) in planned)


def unfinished_songs(instance: dg.DagsterInstance, run_id: str, tables: tuple[str, ...]) -> Mapping[str, str]:
    """Song → cause, of the songs that a failed run was to make ``tables`` for and did not finish.

    It is empty for a run that died or was interrupted, unless it was the last attempt at its songs.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or not is_over_songs(run) or not tables:
        return {}
    causes: Mapping[str, str] = {}
    if run.tags.get(FAILURE_REASON_TAG) == STEP_FAILED:
        failures = step_failures(instance, run_id)
        if failures.interrupted:
            return {}
        causes = failures.songs
        of_run = "\n".join(failures.messages) or "a step failed"
    elif int(run.tags.get(ATTEMPT_TAG, "1")) >= ATTEMPTS and run.tags.get(WILL_RETRY_TAG) != "true":
        of_run = f"the run's process died, as in {ATTEMPTS - 1} runs before; fix the cause, then use `bandscope retry`"
    else:
        return {}
    last = dg.AssetKey(tables[-1])
    planned = instance.get_asset_partitions_for_run(run_id, _PLANNED).get(last, frozenset())
    stored = instance.get_asset_partitions_for_run(run_id, _STORED).get(last, frozenset())
    left = sorted(song for song in planned if song is not None and song not in stored)
    return {song: causes.get(song, of_run)[:CAUSE_CHARACTERS] for song in left}
