"""The executors: what each step requests from a cluster, the setting that chooses one, and no CPU by accident."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pytest

from bandscope_dagster.definitions import defs
from bandscope_dagster.errors import SettingsError
from bandscope_dagster.orchestration.executors import resource_requests, step_executor
from bandscope_dagster.orchestration.resources import Models
from bandscope_dagster.settings import Settings


def asked_of_ray(asset: str) -> Mapping[str, Any]:
    """The resources that the op of an asset requests from Ray."""
    tags = defs.resolve_assets_def(asset).op.tags
    found = tags["dagster-ray/config"]
    return json.loads(found) if isinstance(found, str) else found


def test_only_the_step_with_models_asks_for_a_gpu() -> None:
    assert asked_of_ray("stems") == {"num_cpus": 2, "num_gpus": 1}
    for asset in ("songs", "song_catalog", "song_pages"):
        assert "num_gpus" not in asked_of_ray(asset) and asked_of_ray(asset)["num_cpus"] >= 1


@pytest.mark.parametrize(
    ("chosen", "gpus"),
    [
        ({}, 1),
        ({"device": "cuda"}, 1),
        ({"device": "cpu"}, 0),
        ({"device": "cpu", "gpus": 1}, 1),
        ({"gpus": 2}, 2),
    ],
)
def test_a_gpu_is_asked_for_unless_the_cpu_was_chosen(chosen: dict[str, Any], gpus: int) -> None:
    assert Settings(**chosen).gpus_asked == gpus
    assert resource_requests(1, 1, gpus)["dagster-ray/config"].get("num_gpus", 0) == gpus


@pytest.mark.parametrize("executor", ["ray", "kubernetes"])
def test_a_step_that_asked_for_a_gpu_never_takes_the_cpu_instead(executor: str) -> None:
    on_cluster = Settings(executor=executor, device="auto")  # type: ignore[arg-type]
    assert on_cluster.models_device == "cuda"
    with pytest.raises(SettingsError, match="cuda"):
        Models(on_cluster).tagger()  # torch sees no GPU here
    assert Settings(device="auto").models_device == "auto", (
        "without a cluster, auto takes what the machine has"
    )
    assert Settings(executor=executor, device="cpu").models_device == "cpu"  # type: ignore[arg-type]
    assert Settings(executor=executor, gpus=0).models_device == "auto"  # type: ignore[arg-type]


def test_the_setting_chooses_the_executor() -> None:
    from dagster_k8s import k8s_job_executor
    from dagster_ray import ray_executor

    executors = {"in_process": dg.in_process_executor, "ray": ray_executor, "kubernetes": k8s_job_executor}
    for name, executor in executors.items():
        assert step_executor(Settings(executor=name)) is executor  # type: ignore[arg-type]


def test_each_executor_runs_without_run_configuration() -> None:
    for name in ("ray", "kubernetes"):
        executor = step_executor(Settings(executor=name))  # type: ignore[arg-type]
        assert not executor.config_schema.is_required, "the UI's launch button gives none"


@pytest.mark.parametrize(
    ("executor", "module", "extra"), [("ray", "dagster_ray", "ray"), ("kubernetes", "dagster_k8s", "k8s")]
)
def test_without_its_libraries_it_says_what_to_install(executor: str, module: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{module!r}] = None  # as if it were not installed
from bandscope_dagster.orchestration.executors import step_executor
from bandscope_dagster.settings import Settings
step_executor(Settings(executor={executor!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert f'pip install "bandscope[{extra}]"' in done.stderr and "SettingsError" in done.stderr
