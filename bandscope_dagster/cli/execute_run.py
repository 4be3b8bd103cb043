"""Executes one run of the asset graph in this process, and follows its progress in Dagster's records."""

import builtins
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from bandscope_dagster.definitions import defs
from bandscope_dagster.orchestration.steps import INTERRUPTED, number_checked

QUIET: Final[Mapping[str, Any]] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
WATCH_EVERY_S: Final = 0.5

OnProgress = Callable[[str, int], None]
"""Called with an asset's name and the number of the run's songs that are done in it."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """The result of a run."""

    run_id: str
    success: bool
    interrupted: bool  # it was stopped from outside, for example by Ctrl-C
    problems: list[str]  # the messages of failed steps, for people


def run_to_end(
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    tags: Mapping[str, str],
    on_progress: OnProgress = lambda asset, songs: None,
) -> RunReport:
    """Run ``assets`` to the end. ``on_progress`` is called from another thread when songs finish.

    A failed step does not raise; its message is in the report.
    """
    run_id = str(uuid.uuid4())
    job = defs.resolve_implicit_global_asset_job_def()
    with _watching(instance, run_id, on_progress):
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
    """The message of a failed step; with a traceback, unless it is a ``dg.Failure`` or a fault of a store."""
    failure = event.step_failure_data
    error = failure.error
    if error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        return INTERRUPTED  # the interrupt came while Dagster recorded an event, outside the step's own code
    if failure.user_failure_data is not None and failure.user_failure_data.description:
        return failure.user_failure_data.description
    if error is None:
        return "no message"
    cause = error.cause or error
    is_of_a_store = isinstance(found := getattr(builtins, cause.cls_name or "", None), type) and issubclass(
        found, OSError
    )
    # "OSError: message": a full disk, or a store that cannot be reached; a traceback would not help
    return cause.message.strip().partition(": ")[2] if is_of_a_store else error.to_string()


@contextmanager
def _watching(instance: dg.DagsterInstance, run_id: str, on_progress: OnProgress) -> Generator[None]:
    """Report the progress of the run's songs while the block runs."""
    stopped = threading.Event()

    def watch() -> None:
        cursor: str | None = None
        ended = False
        done: dict[str, set[str]] = defaultdict(set)
        while not ended:
            ended = stopped.wait(WATCH_EVERY_S)
            records = instance.get_records_for_run(run_id, cursor)
            cursor = records.cursor
            progress: dict[str, int] = {}
            for record in records.records:
                entry = record.event_log_entry
                materialized = entry.asset_materialization
                if materialized is not None and materialized.partition is not None:
                    asset = materialized.asset_key.to_user_string()
                    done[asset].add(materialized.partition)
                    progress[asset] = len(done[asset])
                elif (checked := number_checked(entry.user_message)) is not None:
                    progress["songs"] = checked
            for asset, songs in progress.items():
                on_progress(asset, songs)

    thread = threading.Thread(target=watch, name="watch-run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
