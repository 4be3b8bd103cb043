"""Run tags: Dagster's that we read or set, and our own, by which people find a batch."""

from collections.abc import Iterable, Sequence
from socket import gethostname
from typing import Final

import dagster as dg

from bandscope_dagster.input_digests import digest

PARTITION_TAG: Final = "dagster/partition"
RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
PRIORITY_TAG: Final = "dagster/priority"  # of a queued run: the highest number starts first; the default is 0
RUN_KEY_TAG: Final = "dagster/run_key"
SENSOR_TAG: Final = "dagster/sensor_name"
WILL_RETRY_TAG: Final = "dagster/will_retry"
CODE_SERVER_TAG: Final = (
    ".dagster/grpc_info"  # the address of the code server that was asked to start the run
)
FAILURE_REASON_TAG: Final = "dagster/failure_reason"
STEP_FAILED: Final = "STEP_FAILURE"  # its value if a step failed; otherwise the run never began, or died
PARENT_RUN_TAG: Final = "dagster/parent_run_id"  # of a re-executed run

REUSE_TAG: Final = "bandscope/reuse"
RETRY_TAG: Final = "bandscope/retry"
RESUMES_TAG: Final = "bandscope/resumes"  # the dead run whose songs a run computes
ATTEMPT_TAG: Final = "bandscope/attempt"  # its number, from 2
LAUNCHER_TAG: Final = "bandscope/launched-by"
LAUNCHER: Final = "bandscope run"  # the value on runs in that command's own process
HOST_TAG: Final = "bandscope/host"  # of such a run: the name of its machine or container
WAITS_FOR_TAG: Final = "bandscope/waits-for"  # the run that computes songs of this one; empty after it

SONGS_TAG: Final = "bandscope/songs"
OWNERS_TAG: Final = "bandscope/owners"
RUN_KEY_DIGITS: Final = 32
SHOWN_OWNERS: Final = 3  # more would not fit in the UI's list of runs


def launcher_tags() -> dict[str, str]:
    """The tags of a run in this process of ``bandscope run``."""
    return {LAUNCHER_TAG: LAUNCHER, HOST_TAG: gethostname()}


def is_of_command(run: dg.DagsterRun) -> bool:
    """True if the run goes on in the process of a ``bandscope run``, not in one that a code server started.

    A person may execute such a run again in the UI, which copies its tags.
    """
    return LAUNCHER_TAG in run.tags and run.remote_job_origin is None


def is_over_songs(run: dg.DagsterRun) -> bool:
    """True if the run has songs as partitions."""
    return not run.tags.keys().isdisjoint((PARTITION_TAG, RANGE_START_TAG))


def search_tags(songs: Sequence[str], owners: Iterable[str | None]) -> dict[str, str]:
    """The run tags by which people find a batch: the number of songs, and their owners.

    Dagster's own tags have the first song and the last.
    """
    tags = {SONGS_TAG: str(len(songs))}
    names = sorted({owner for owner in owners if owner is not None})
    if names:
        tags[OWNERS_TAG] = ", ".join([*names[:SHOWN_OWNERS], *(["…"] if len(names) > SHOWN_OWNERS else [])])
    return tags


def run_key(*parts: object) -> str:
    """A key for a requested run: with the key of an existing run, Dagster starts none."""
    return digest(*parts)[:RUN_KEY_DIGITS]


def tag_run(context: dg.AssetExecutionContext, owners: Iterable[str | None] = ()) -> None:
    """Add the search tags to the run, unless it has them: the UI and backfills start runs without them."""
    run = context.instance.get_run_by_id(context.run.run_id)
    # Dagster reads a range whose ends are swapped as a range without songs.
    if run is not None and SONGS_TAG not in run.tags and context.partition_keys:
        context.instance.add_run_tags(run.run_id, search_tags(context.partition_keys, owners))


def wants_reuse(context: dg.AssetExecutionContext) -> bool:
    """True if the run keeps stored results of the same input and code: a step's retry, a re-execution, or by tag."""
    return (
        context.retry_number > 0
        or context.run.parent_run_id is not None
        or context.run.tags.get(REUSE_TAG) == "true"
    )
