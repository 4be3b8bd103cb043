"""The executor by setting: steps run in the run's process, or as jobs of Ray or Kubernetes with resource requests."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.settings import ExecutorName, Settings

GPU_NODE_LABEL: Final = "nvidia.com/gpu.present"  # set by NVIDIA's GPU feature discovery
GPU_RESOURCE: Final = "nvidia.com/gpu"  # by NVIDIA's device plugin; also the taint on its nodes

_EXECUTORS: Final[Mapping[ExecutorName, tuple[str, str, str]]] = {
    "ray": ("dagster_ray", "ray_executor", "ray"),
    "kubernetes": ("dagster_k8s", "k8s_job_executor", "k8s"),
}
"""Setting → the module of its executor, the executor's name there, and the extra of our package that installs it."""


def resource_requests(cpus: int, memory_gib: int, gpus: int = 0) -> dict[str, Any]:
    """The tags with a step's resource requests to Ray and Kubernetes; other executors ignore them.

    Memory is requested from Kubernetes only: Ray counts the memory of jobs, but not that of its own processes.
    """
    requests = {"cpu": str(cpus), "memory": f"{memory_gib}Gi"}
    container: dict[str, Any] = {"resources": {"requests": requests}}
    ray: dict[str, Any] = {"num_cpus": cpus}
    # A step reads untrusted uploads, and needs no access to the Kubernetes API: the run's pod starts the pods.
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
    """The executor of the settings.

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
            f"BANDSCOPE_EXECUTOR={settings.executor!r} needs libraries that are not installed; run "
            f'pip install "bandscope[{extra}]" ({error})'
        ) from error
