"""Execute one run of the asset graph in this process, and watch it through Dagster's own records."""

import threading
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from bandscope_dagster.batches import INTERRUPTED
from bandscope_dagster.definitions import defs

QUIET: Final[Mapping[str, Any]] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
WATCH_EVERY_S: Final = 0.5

SONG_EVENTS: Final = {
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run ended."""

    run_id: str
    success: bool
    interrupted: bool  # it was stopped from outside, as by Ctrl-C
    problems: list[str]  # what the failed steps say, for people


def launch(
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    tags: Mapping[str, str],
    on_song: Callable[[str, str], None] = lambda asset, song: None,
) -> RunReport:
    """Run ``assets`` to the end; ``on_song(asset, song)`` is called from a thread for every song that is done.

    A failed step does not raise: the report says it.
    """
    run_id = str(uuid.uuid4())
    job = defs.resolve_implicit_global_asset_job_def()
    with _watching(instance, run_id, on_song):
        result = job.execute_in_process(
            run_config=dict(QUIET),
            instance=instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            run_id=run_id,
            tags=dict(tags),
            raise_on_error=False,
        )
    problems = [_problem(event) for event in result.filter_events(lambda event: event.is_step_failure)]
    interrupted = any(problem.startswith(INTERRUPTED) for problem in problems)
    return RunReport(run_id, result.success, interrupted, problems)


def _problem(event: dg.DagsterEvent) -> str:
    """What a step's failure says; an error that is no ``dg.Failure`` says it with its traceback."""
    failure = event.step_failure_data
    error = failure.error
    if error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        return INTERRUPTED  # it came while Dagster recorded an event, where no code of the step could see it
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description
    return error.to_string() if error is not None else "no message"


def _song_done(entry: dg.EventLogEntry) -> tuple[str, str] | None:
    """The (asset, song) that an event reports as done.

    The materializations of ``songs`` come all at once at the step's end, so there the song's check tells.
    """
    event = entry.dagster_event
    if event is None:
        return None
    if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        asset, song = check.asset_key.to_user_string(), check.partition
        return (asset, song) if asset == "songs" and song is not None else None
    if event.asset_key is None or event.partition is None:
        return None
    asset = event.asset_key.to_user_string()
    return None if asset == "songs" else (asset, event.partition)


@contextmanager
def _watching(
    instance: dg.DagsterInstance, run_id: str, on_song: Callable[[str, str], None]
) -> Generator[None]:
    """Report the run's per-song events while the block runs."""
    stopped = threading.Event()

    def watch() -> None:
        cursor: str | None = None
        ended = False
        while not ended:
            ended = stopped.wait(WATCH_EVERY_S)
            records = instance.get_records_for_run(run_id, cursor, of_type=SONG_EVENTS)
            cursor = records.cursor
            for record in records.records:
                done = _song_done(record.event_log_entry)
                if done is not None:
                    on_song(*done)

    thread = threading.Thread(target=watch, name="watch-run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
