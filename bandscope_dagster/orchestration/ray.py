"""Each step as a job of a Ray cluster, by dagster-ray; and in the run's log, what a step waits for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandlerContext,
)
from dagster_ray.configs import RayExecutionConfig
from dagster_ray.core.executor import RayStepHandler

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

LOOK_EVERY_S: Final = 10  # whether a step has begun, and whether the node that it runs on is still there


class ExplainingStepHandler(RayStepHandler):
    """Starts and watches steps as dagster-ray does, and says of one that waits for a node, once, what it waits for."""

    def __init__(self, client: "JobSubmissionClient") -> None:
        # What a step asks for stands in its op's tags; its environment is that of the node, so that no secret passes
        # through Ray, whose dashboard shows what a job is given.
        super().__init__(client, None, None, None, None, None, None)
        self._explained: set[str] = set()

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        """As dagster-ray's: a step whose job failed, or whose node is gone, is left to the step's retry policy."""
        health = super().check_step_health(step_handler_context)
        job_id = self._get_ray_job_submission_id(step_handler_context)
        if health.is_healthy and job_id not in self._explained:
            step = self._get_step_key(step_handler_context)
            if self.client.get_job_status(job_id) == "PENDING":
                self._explained.add(job_id)
                asked = RayExecutionConfig.from_tags(step_handler_context.step_tags[step])
                step_handler_context.instance.report_engine_event(
                    f"{step} has not begun: {why_it_waits(asked, nodes_of(self.client))}"
                    f" The job is {job_id} in Ray's dashboard.",
                    step_handler_context.dagster_run,
                    step_key=step,
                )
        return health


def nodes_of(client: "JobSubmissionClient") -> list[Mapping[str, float]]:
    """The resources of each node of the cluster that is alive, by Ray's names for them."""
    from ray.util.state import list_nodes

    # Ray counts nodes that are filtered out, such as dead ones, as missing from its answer.
    nodes: list[Any] = list_nodes(
        address=client.get_address(), filters=[("state", "=", "ALIVE")], raise_on_missing_output=False
    )
    return [node.resources_total for node in nodes]


def why_it_waits(asked: RayExecutionConfig, nodes: list[Mapping[str, float]]) -> str:
    """A sentence or two on what a step asks for, and whether any node could ever give it."""
    wanted = {"GPU": asked.num_gpus or 0, "CPU": asked.num_cpus or 0}
    names = " and ".join(f"{number:g} {name}" for name, number in wanted.items() if number)
    if any(all(node.get(name, 0) >= number for name, number in wanted.items()) for node in nodes):
        return f"it waits until a node has {names} free."
    advice = (
        "Add a node with a GPU; or, to compute on CPUs on purpose, set BANDSCOPE_DEVICE=cpu where the code is loaded."
        if wanted["GPU"] > max((node.get("GPU", 0) for node in nodes), default=0)
        else "Add a larger node."
    )
    return f"it asks for {names}, and none of the {len(nodes)} nodes of the Ray cluster has as much. {advice}"


@dg.executor(name="ray", requirements=dg.multiple_process_executor_requirements())
def ray_executor(_: dg.InitExecutorContext) -> StepDelegatingExecutor:
    """Each step is a job of the Ray cluster at ``RAY_ADDRESS``, on a node that has what the op's tags ask for."""
    from ray.job_submission import JobSubmissionClient

    return StepDelegatingExecutor(
        ExplainingStepHandler(JobSubmissionClient()),
        retries=RetryMode.ENABLED,
        check_step_health_interval_seconds=LOOK_EVERY_S,
        should_verify_step=True,
    )
