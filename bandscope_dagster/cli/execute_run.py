"""Executes one run of the asset graph in this process."""

import builtins
import gc
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from bandscope_dagster.definitions import defs
from bandscope_dagster.orchestration.steps import INTERRUPTED

QUIET: Final[Mapping[str, Any]] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


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
) -> RunReport:
    """Run ``assets`` to the end. A failed step does not raise; its message is in the report."""
    run_id = str(uuid.uuid4())
    job = defs.resolve_implicit_global_asset_job_def()
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
    if interrupted:
        # If the interrupt came in Dagster's own code, the step's generator is suspended, and its threads work on.
        # Collected, it ends like any generator: it waits for the current segments and discards unfinished files.
        gc.collect()
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
