"""Songs that two runs are asked to compute at the same time: the second run waits, and keeps what the first has made.

The runs are those of one home. Two homes over one store do not see each other: both compute, and the last file wins.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import dagster as dg

from bandscope_dagster.errors import counted
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.orchestration.ranges import songs_of_tags
from bandscope_dagster.orchestration.run_tags import WAITS_FOR_TAG, is_over_songs, wants_reuse
from bandscope_dagster.pipeline.stop import pause

LOOK_EVERY_S: Final = 2.0
LOOKED_AT: Final = 500  # ended runs, the newest first

COMPUTING: Final = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
ENDED: Final = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]

_BEGIN: Final = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
_END: Final = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}


def in_turn(context: dg.AssetExecutionContext, songs: Sequence[str]) -> Iterator[tuple[Sequence[str], bool]]:
    """The ``songs`` of this step in up to three parts, each with True if stored results of it are kept.

    The first part is this run's alone. The others are songs that another run of the same step also has, and come after
    that step's end if it began before this one. Those that it has computed since this run was requested are kept. A
    step waits only for steps that began before it, so no two wait for each other.
    """
    reuse = wants_reuse(context)
    requested, others = _other_runs(context)
    shared = [song for song in songs if any(song in covered for covered in others.values())]
    alone = set(songs).difference(shared)
    if alone:
        yield [song for song in songs if song in alone], reuse
    computed: set[str] = set()
    for run_id, covered in others.items():
        if here := [song for song in shared if song in covered]:
            _wait_for(context, run_id, here)
            computed |= _computed_since(context, run_id, requested).intersection(here)
    for part, keep in (
        ([song for song in shared if song in computed], True),
        ([song for song in shared if song not in computed], reuse),
    ):
        if part:
            yield part, keep


def _other_runs(context: dg.AssetExecutionContext) -> tuple[float, dict[str, set[str]]]:
    """When this run was requested (seconds since 1970), and run → songs of the other runs that went on since then."""
    instance, own = context.instance, context.run.run_id
    stats = instance.get_run_stats(own)
    requested = stats.enqueued_time or stats.launch_time or stats.start_time or time.time()
    records = [
        *instance.get_run_records(dg.RunsFilter(statuses=COMPUTING)),
        *instance.get_run_records(
            dg.RunsFilter(statuses=ENDED, updated_after=datetime.fromtimestamp(requested, UTC)),
            limit=LOOKED_AT,
            order_by="update_timestamp",
        ),
    ]
    places: dict[str, int] = {}
    found: dict[str, set[str]] = {}
    wanted = context.selected_asset_keys
    for record in records:
        run = record.dagster_run
        if run.run_id == own or record.start_time is None or not is_over_songs(run):
            continue
        if (record.end_time or requested) < requested or (run.asset_selection or wanted).isdisjoint(wanted):
            continue
        places = places or {
            song: place for place, song in enumerate(instance.get_dynamic_partitions(SONGS_NAME))
        }
        found[run.run_id] = songs_of_tags(run.tags, places)
    return requested, found


def _wait_for(context: dg.AssetExecutionContext, run_id: str, songs: Sequence[str]) -> None:
    """Return when the same step of another run has ended, or at once if it began after this one, or does not run."""
    instance, step = context.instance, context.op_def.name
    own = _executing_since(instance, context.run.run_id, step) or time.time()
    told = False
    while True:
        run = instance.get_run_by_id(run_id)
        since = None if run is None or run.is_finished else _executing_since(instance, run_id, step)
        if since is None or (since, run_id) > (own, context.run.run_id):
            break
        if not told:
            context.log.warning(
                f"Run {run_id[:8]} computes {counted(len(songs), 'song')} of this run now. This run waits for it, and"
                f" keeps what it computes: {', '.join(songs)}"
            )
            told = True
            instance.add_run_tags(context.run.run_id, {WAITS_FOR_TAG: run_id})
        pause(LOOK_EVERY_S)
        end_dead_runs(instance)
    if told:
        instance.add_run_tags(context.run.run_id, {WAITS_FOR_TAG: ""})


def _computed_since(context: dg.AssetExecutionContext, run_id: str, since: float) -> set[str]:
    """The songs that the same step of another run has computed, not only kept, since a time (seconds since 1970)."""
    found: set[str] = set()
    events = context.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    for entry in events:
        event = entry.asset_materialization
        if entry.step_key != context.op_def.name or entry.timestamp < since or event is None:
            continue
        kept = event.metadata.get("reused")
        if event.partition is not None and not (kept is not None and kept.value):
            found.add(event.partition)
    if found:
        context.log.info(
            f"Run {run_id[:8]} has computed {counted(len(found), 'song')} since this run was requested: results of such"
            " songs are kept."
        )
    return found


def _executing_since(instance: dg.DagsterInstance, run_id: str, step: str) -> float | None:
    """When the run began its current attempt of the step (seconds since 1970); None if it does not execute it now."""
    events = [entry for entry in instance.all_logs(run_id, of_type=_BEGIN | _END) if entry.step_key == step]
    if not events or (last := events[-1].dagster_event) is None or last.event_type not in _BEGIN:
        return None
    return events[-1].timestamp
