"""The pool of the models, for runs that no queue has started: those of ``bandscope run``.

Where a pool limits runs (``granularity: run``), Dagster's queue keeps the limit, and only for the runs that it starts.
It counts our runs too; here our runs count its runs. With ``granularity: op``, Dagster's executor keeps the limit for
every run.
"""

from typing import Final

import dagster as dg

from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.run_tags import WAITS_FOR_TAG, is_of_command
from bandscope_dagster.pipeline.stop import pause

MODELS_POOL: Final = "gpu"  # of runs with ``analyze``
LOOK_EVERY_S: Final = 1.0
UNDER_WAY: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def runs_at_once(instance: dg.DagsterInstance, pool: str) -> int | None:
    """The most runs that may use the pool at once; None if runs are not limited."""
    storage = instance.event_log_storage
    config = storage.get_pool_config()
    if config.pool_granularity is None or config.pool_granularity.value != "run":
        return None
    limits = {limit.name: limit.limit for limit in storage.get_pool_limits() if not limit.from_default}
    return limits.get(pool, config.default_pool_limit)


def has_place(context: dg.AssetExecutionContext, pool: str) -> bool:
    """True if the pool has a place for this run now: always for a run that the queue has started."""
    limit = runs_at_once(context.instance, pool) if is_of_command(context.run) else None
    return limit is None or _before(context.instance, context.run.run_id, pool) < limit


def wait_for_place(context: dg.AssetExecutionContext, pool: str) -> None:
    """Return when the pool has a place for this run, if it is one of ``bandscope run``.

    It waits for the queue's runs, which never wait for it, and for those of ``bandscope run`` that were created before
    it. A run that waits for another one's songs uses no model and does not count: it may wait for this one. So no two
    wait for each other. The queue counts the waiting run, and starts no other in the place that becomes
    free.
    """
    instance = context.instance
    if not is_of_command(context.run) or (limit := runs_at_once(instance, pool)) is None:
        return
    told = False
    while (before := _before(instance, context.run.run_id, pool)) >= limit:
        if not told:
            context.log.info(
                f"The pool {pool} is full: {before} runs of {limit}. This run waits for a place."
            )
            told = True
        pause(LOOK_EVERY_S)
        end_dead_runs(instance)


def _before(instance: dg.DagsterInstance, run_id: str, pool: str) -> int:
    """The runs in the pool that come before this one."""
    records = [
        record
        for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY))
        if (concurrency := record.dagster_run.run_op_concurrency)
        and pool in (concurrency.all_pools or ())
        and not record.dagster_run.tags.get(WAITS_FOR_TAG)
    ]
    own = next((_began(record) for record in records if record.dagster_run.run_id == run_id), (0.0, run_id))
    return sum(
        not is_of_command(record.dagster_run) or _began(record) < own
        for record in records
        if record.dagster_run.run_id != run_id
    )


def _began(record: dg.RunRecord) -> tuple[float, str]:
    """When the run was created, which never changes (seconds since 1970), and its id."""
    return record.create_timestamp.timestamp(), record.dagster_run.run_id
