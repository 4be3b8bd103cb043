"""The frame of every step that works song by song: its process, its progress, and how it ends.

A batch succeeds song by song: the other songs are finished and reported first, and only then does the step fail. In
Dagster 1.13, events that were reported before a step raises are kept.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast
from weakref import WeakSet

import dagster as dg

from bandscope_dagster.allocator import share_freed_memory
from bandscope_dagster.errors import CannotAnalyze, ModelFileError, SettingsError, SongRejected
from bandscope_dagster.orchestration.run_tags import PARTITION_TAG, RANGE_START_TAG
from bandscope_dagster.pipeline.failures import failure_text
from bandscope_dagster.pipeline.outcomes import SongFailed
from bandscope_dagster.pipeline.stop import check_stop

INTERRUPTED: Final = "Interrupted"  # a step that was stopped from outside starts its message with this
FAILED_SONGS: Final = "failed_songs"  # metadata of a failed step: song id → cause

# The values of Dagster's own webserver, except for the timeout: no one waits in front of a page.
STATEMENT_TIMEOUT_MS: Final = 60_000
POOL_RECYCLE_S: Final = 3600
MAX_OVERFLOW: Final = 20  # connections beyond one, when several threads ask at once

_KEPT_OPEN: Final = WeakSet[dg.DagsterInstance]()  # instances whose connections stay open already


def keep_connections_open(instance: dg.DagsterInstance) -> None:
    """Keep this process's connections to PostgreSQL open; it reports thousands of events.

    By default Dagster opens one for every statement, which is three quarters of the cost of an event. SQLite is not
    affected.
    """
    if instance in _KEPT_OPEN:
        return
    _KEPT_OPEN.add(instance)
    instance.optimize_for_webserver(
        statement_timeout=STATEMENT_TIMEOUT_MS, pool_recycle=POOL_RECYCLE_S, max_overflow=MAX_OVERFLOW
    )


@contextmanager
def song_step(instance: dg.DagsterInstance) -> Generator[None]:
    """Set up the process for a step over songs, and end the step without a retry if a retry could not succeed.

    Wrong settings and missing weights fail again on every retry. Dagster also counts an interrupt (Ctrl-C, or
    "terminate" in the UI) as a failed attempt, and would start the step again.

    Raises:
        dg.Failure: it is not retried. Stored results are kept.
    """
    share_freed_memory()
    keep_connections_open(instance)
    try:
        check_stop()
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError) as interrupt:
        raise dg.Failure(
            description=f"{INTERRUPTED}: finished songs are kept, and a re-execution continues with the rest.",
            allow_retries=False,
        ) from interrupt
    except (ModelFileError, SettingsError) as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error


def songs_of_run(context: dg.AssetExecutionContext) -> list[str]:
    """The songs of the run.

    Raises:
        dg.Failure: it has none, or selects only checks; the message says what to do instead.
    """
    if not context.selected_asset_keys:
        raise dg.Failure(
            description="Checks have no run of their own: each is recorded when its asset is computed for a song."
            " Materialize the asset for these songs, with the run tag bandscope/reuse=true to keep the results.",
            allow_retries=False,
        )
    tags = context.run.tags
    if not tags.keys() & {PARTITION_TAG, RANGE_START_TAG}:
        raise dg.Failure(
            description="This run names no song. Choose songs (partitions) under Materialize, or start the job"
            " retry_songs, which finds all songs that are not done.",
            allow_retries=False,
        )
    return list(context.partition_keys)


def raise_failures(failed: Sequence[SongFailed], songs: int) -> None:
    """Fail the step if any of its ``songs`` failed, and name each failed song with its cause.

    Dagster may retry the step unless a retry in the same run cannot fix any of the causes.

    Raises:
        dg.Failure: at least one song failed.
    """
    if not failed:
        return
    causes = "\n".join(f"  {song.song_id}: {failure_text(song.error)}" for song in failed)
    raise dg.Failure(
        description=f"{len(failed)} of {songs} songs failed; the others are done.\n{causes}",
        metadata={FAILED_SONGS: dg.MetadataValue.json({s.song_id: failure_text(s.error) for s in failed})},
        allow_retries=not all(isinstance(song.error, CannotAnalyze | SongRejected) for song in failed),
    )


@dataclass(frozen=True, slots=True)
class StepFailures:
    """The failed steps of a run."""

    messages: tuple[str, ...]  # of each step: the description of its ``dg.Failure``, or that of its exception
    songs: Mapping[str, str]  # song → cause, for the songs that a step reported as failed

    @property
    def interrupted(self) -> bool:
        """True if a step was stopped from outside."""
        return any(message.startswith(INTERRUPTED) for message in self.messages)


def step_failures(instance: dg.DagsterInstance, run_id: str) -> StepFailures:
    """The failed steps of a run, from the event log."""
    messages, songs = list[str](), dict[str, str]()
    for message, causes in _each_failure(instance, run_id):
        messages.append(message)
        songs |= causes
    return StepFailures(tuple(messages), songs)


def _each_failure(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        if entry.dagster_event is None:
            continue
        data = entry.dagster_event.step_failure_data
        if (said := data.user_failure_data) is not None and said.description:
            yield said.description, causes_in(said.metadata)
        elif data.error is not None:
            # Dagster wraps the exception of a step in one of its own.
            yield (data.error.cause or data.error).message.strip(), {}


def causes_in(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    """Song → cause, of the songs that the metadata of a step name as failed."""
    causes = metadata.get(FAILED_SONGS)
    return cast(dict[str, str], causes.value) if isinstance(causes, dg.JsonMetadataValue) else {}
