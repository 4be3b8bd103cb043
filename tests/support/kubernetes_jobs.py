"""The Kubernetes jobs of our steps and runs, as dagster_k8s builds them from our values and our ops' tags."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes
import yaml
from dagster._config import process_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job, get_user_defined_k8s_config

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
VALUES: dict[str, Any] = yaml.safe_load((KUBERNETES / "values.yaml").read_text())
SETTINGS: dict[str, str] = yaml.safe_load((KUBERNETES / "settings.yaml").read_text())["data"]

# A client needs the address of a cluster; nothing here connects to it.
_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
    "current-context": "none",
}

_TELL = """
import json
from bandscope_dagster.definitions import defs

jobs = [defs.resolve_job_def(name) for name in ("process_songs", "refresh_catalogs", "write_pages")]
ops = {node.name: dict(node.definition.tags) for job in jobs for node in job.graph.nodes}
print(json.dumps({"ops": ops, "executors": sorted({job.executor_def.name for job in jobs})}))
"""


@dataclass(frozen=True)
class Location:
    """The ops and executors in ``bandscope_dagster.definitions`` of a process with some settings."""

    ops: Mapping[str, Mapping[str, str]]  # op → its tags
    executors: list[str]  # of its jobs


def load_location(**settings: str) -> Location:
    """The code location of a new process with the settings of settings.yaml and these changes."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("BANDSCOPE_")}
    told = subprocess.run(
        [sys.executable, "-c", _TELL],
        env=others | SETTINGS | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return Location(**json.loads(told.stdout))


def outside_a_cluster(launcher: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration with a kubeconfig, which a launcher's client needs on this machine."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(_KUBECONFIG))
    return {**launcher, "load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}


def make_launcher(config: Mapping[str, Any], folder: Path) -> K8sRunLauncher:
    """The launcher with that configuration, after the validation that Dagster does."""
    checked = process_config(K8sRunLauncher.config_type(), outside_a_cluster(config, folder))
    assert checked.success, [error.message for error in checked.errors or []]
    return K8sRunLauncher.from_config_value(None, checked.value)


def build_job(
    launcher: K8sRunLauncher, component: str, image: str, tags: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The job of a step whose op has ``tags``, or of a run, as Dagster sends it to Kubernetes."""
    run = dg.DagsterRun(job_name="process_songs")
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=False)
    if tags is not None:
        context = context.merge(K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(tags)))
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(image, launcher),
        args=["dagster", "api", "execute_step"],
        job_name=f"dagster-{component}-{run.run_id[:8]}".replace("_", "-"),
        component=component,
        user_defined_k8s_config=context.run_k8s_config,
        labels={"dagster/job": run.job_name},
    )
    return kubernetes.client.ApiClient().sanitize_for_serialization(job)
