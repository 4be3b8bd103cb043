"""Where steps run, by setting: in the run's process, or as jobs of Ray or Kubernetes; and what they ask for there."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.settings import ExecutorName, Settings

GPU_NODE_LABEL: Final = "nvidia.com/gpu.present"  # set by NVIDIA's GPU feature discovery
GPU_RESOURCE: Final = "nvidia.com/gpu"  # of NVIDIA's device plugin; also the taint that keeps others off

_EXECUTORS: Final[Mapping[ExecutorName, tuple[str, str, str]]] = {
    "ray": ("bandscope_dagster.orchestration.ray", "ray_executor", "ray"),
    "kubernetes": ("dagster_k8s", "k8s_job_executor", "k8s"),
}
"""Setting → the module of its executor, the executor's name there, and the extra of this package that it needs."""


def op_tags(cpus: int, memory_gib: int, gpus: int = 0) -> dict[str, Any]:
    """What a step asks of Ray and of Kubernetes; in the run's own process these tags mean nothing.

    Memory is a request on Kubernetes alone: Ray's is bookkeeping that its nodes' own processes do not take part in.
    """
    requests = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    container: dict[str, Any] = {"resources": {"requests": requests}}
    ray: dict[str, Any] = {"num_cpus": cpus}
    # A step reads strangers' uploads. It starts no pods; the run that started it does.
    pod: dict[str, Any] = {"automount_service_account_token": False}
    if gpus:
        container["resources"]["limits"] = {GPU_RESOURCE: str(gpus)}
        pod["node_selector"] = {GPU_NODE_LABEL: "true"}
        pod["tolerations"] = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
        ray["num_gpus"] = gpus
    return {
        "dagster-k8s/config": {"container_config": container, "pod_spec_config": pod},
        "dagster-ray/config": ray,
    }


def step_executor(settings: Settings) -> dg.ExecutorDefinition:
    """The executor that the settings choose.

    Raises:
        SettingsError: its libraries are not installed.
    """
    if settings.executor == "in_process":
        return dg.in_process_executor
    module, name, extra = _EXECUTORS[settings.executor]
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise SettingsError(
            f"BANDSCOPE_EXECUTOR={settings.executor!r} needs libraries that are not installed here: "
            f'pip install "bandscope[{extra}]" ({error})'
        ) from error
