"""deploy/kubernetes: the pods from our values and the tags of our ops, built by dagster_k8s itself."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._serdes import ConfigurableClassData
from helm_chart import compute_logs, dagster_yaml, launcher_config
from kubernetes_jobs import (
    KUBERNETES,
    SETTINGS,
    VALUES,
    Location,
    build_job,
    load_location,
    make_launcher,
)
from pydantic import ValidationError
from s3_server import S3Server

from bandscope_dagster.settings import Settings
from bandscope_dagster.tagging.options import ServerOptions
from bandscope_dagster.tagging.registry import served_name

ROOT = KUBERNETES.parent.parent
README = (KUBERNETES / "README.md").read_text()
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"registry.example.org/bandscope-worker:{VERSION}"
VARIANTS = ["network-policies/in-cluster.yaml", "network-policies/nodelocal-dns.yaml"]
MANIFESTS = [
    "settings.yaml", "secrets.example.yaml", "weights.yaml", "network-policy.yaml", "vllm.yaml", *VARIANTS
]  # fmt: skip
OPS = ["songs", "analyze", "catalogs", "song_pages"]
WRITABLE = {"/tmp", "/opt/dagster/dagster_home"}


def documents(name: str) -> list[dict[str, Any]]:
    """The objects of a manifest."""
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def named(kind: str) -> dict[str, dict[str, Any]]:
    """Name → object, for all objects of this kind in the manifests."""
    found = [document for name in MANIFESTS for document in documents(name) if document["kind"] == kind]
    return {document["metadata"]["name"]: document for document in found}


@pytest.fixture(scope="module")
def location() -> Location:
    return load_location()


@pytest.fixture(scope="module")
def jobs(location: Location, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Op → the job of its step, and "run" → the job of a run."""
    launcher = make_launcher(launcher_config(VALUES), tmp_path_factory.mktemp("launcher"))
    steps = {op: build_job(launcher, "step_worker", IMAGE, location.ops[op]) for op in OPS}
    return steps | {"run": build_job(launcher, "run_worker", IMAGE)}


@pytest.fixture(scope="module")
def pods(jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Op or "run" → the pod of its job."""
    return {name: job["spec"]["template"]["spec"] for name, job in jobs.items()}


@pytest.fixture(scope="module")
def containers(pods: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Op or "run" → the only container of its pod."""
    assert all(len(pod["containers"]) == 1 for pod in pods.values())
    return {name: pod["containers"][0] for name, pod in pods.items()}


def test_with_these_settings_every_step_is_a_job_of_kubernetes(location: Location) -> None:
    assert location.executors == ["k8s"]
    assert sorted(location.ops) == sorted(OPS)


@pytest.mark.parametrize("name", [*OPS, "run"])
def test_every_job_is_valid_for_kubernetes(jobs: dict[str, dict[str, Any]], name: str) -> None:
    kubernetes_validate.validate(jobs[name], kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_manifest_is_valid_for_kubernetes(name: str) -> None:
    for document in documents(name):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", [*OPS, "run"])
def test_a_pod_requests_the_resources_of_the_page(containers: dict[str, dict[str, Any]], name: str) -> None:
    said = re.search(rf"^\| `?{name}`? \| (\S+) \| (\S+) \| (\S+) \|", README, re.MULTILINE)
    assert said is not None, f"README.md has no row for {name}"
    resources = containers[name]["resources"]
    gpus = resources.get("limits", {}).get("nvidia.com/gpu", "none")
    assert said.groups() == (resources["requests"]["cpu"], resources["requests"]["memory"], gpus)


def test_only_steps_with_models_go_to_nodes_with_gpus(pods: dict[str, dict[str, Any]]) -> None:
    with_gpu = pods["analyze"]
    assert with_gpu["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert with_gpu["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert [name for name, pod in pods.items() if "nodeSelector" in pod or "tolerations" in pod] == [
        "analyze"
    ]


def test_on_a_cluster_of_cpus_no_step_requests_a_gpu_or_a_node_with_one(tmp_path: Path) -> None:
    launcher = make_launcher(launcher_config(VALUES), tmp_path)
    job = build_job(launcher, "step_worker", IMAGE, load_location(BANDSCOPE_DEVICE="cpu").ops["analyze"])
    assert "nvidia" not in json.dumps(job)


def test_no_step_inherits_a_limit_of_memory_or_cpu(containers: dict[str, dict[str, Any]]) -> None:
    for name, container in containers.items():
        assert set(container["resources"].get("limits", {})) <= {"nvidia.com/gpu"}, name


def test_steps_and_runs_get_settings_and_secrets_by_reference(
    containers: dict[str, dict[str, Any]],
) -> None:
    for container in containers.values():
        assert container["image"] == IMAGE
        assert container["envFrom"] == [
            {"configMapRef": {"name": "bandscope-settings"}},
            {"secretRef": {"name": "bandscope-secrets"}},
        ]
        password = {"name": "bandscope-postgresql", "key": "postgresql-password"}
        assert {"name": "DAGSTER_PG_PASSWORD", "valueFrom": {"secretKeyRef": password}} in container["env"]


def test_the_manifests_contain_every_object_that_pods_refer_to(pods: dict[str, dict[str, Any]]) -> None:
    secrets, maps, claims = named("Secret"), named("ConfigMap"), named("PersistentVolumeClaim")
    assert list(maps) == ["bandscope-settings"]
    assert "postgresql-password" in secrets["bandscope-postgresql"]["stringData"]
    weights = documents("weights.yaml")[1]["spec"]["template"]["spec"]
    for pod in [*pods.values(), weights]:
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            for source in container["envFrom"]:
                assert source.get("configMapRef", {"name": "bandscope-settings"})["name"] in maps
                assert source.get("secretRef", {"name": "bandscope-secrets"})["name"] in secrets
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_weights_are_read_only_and_only_scratch_can_be_written(
    containers: dict[str, dict[str, Any]], pods: dict[str, dict[str, Any]]
) -> None:
    for name, container in containers.items():
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts[SETTINGS["BANDSCOPE_MODELS_FOLDER"]]["readOnly"], name
        assert {path for path, mount in mounts.items() if not mount.get("readOnly")} == WRITABLE
        for volume in pods[name]["volumes"]:
            assert volume.get("emptyDir", {}).get("sizeLimit") or volume["persistentVolumeClaim"]["readOnly"]


def confined(pod: Mapping[str, Any], container: Mapping[str, Any]) -> bool:
    """True if a container is not root, cannot become root, and can write only to its volumes."""
    of_pod, of_container = pod["securityContext"], container["securityContext"]
    return (
        of_pod["runAsNonRoot"]
        and of_pod["runAsUser"] == of_pod["runAsGroup"] == of_pod["fsGroup"] == 10001
        and of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
        and of_container
        == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
    )


def test_no_pod_is_root_or_writes_outside_its_volumes(
    pods: dict[str, dict[str, Any]], containers: dict[str, dict[str, Any]]
) -> None:
    for name, pod in pods.items():
        assert confined(pod, containers[name]), name
    weights = documents("weights.yaml")[1]["spec"]["template"]["spec"]
    for container in [*weights["initContainers"], *weights["containers"]]:
        assert confined(weights, container), container["name"]
    (code,) = VALUES["dagster-user-deployments"]["deployments"]
    for part in (code, VALUES["dagsterWebserver"], VALUES["dagsterDaemon"]):
        assert confined({"securityContext": part["podSecurityContext"]}, part)


def test_the_image_runs_as_the_user_of_the_pods() -> None:
    for name in ("control", "worker"):
        assert "\nUSER 10001:10001\n" in (ROOT / "deploy" / "docker" / f"{name}.Dockerfile").read_text()


def test_a_run_has_a_token_for_the_kubernetes_api_and_a_step_has_none(
    pods: dict[str, dict[str, Any]],
) -> None:
    assert {op: pods[op]["automountServiceAccountToken"] for op in OPS} == dict.fromkeys(OPS, False)
    assert pods["run"]["automountServiceAccountToken"]


def test_services_of_the_namespace_add_no_variables_that_look_like_settings(
    pods: dict[str, dict[str, Any]],
) -> None:
    assert not any(pod["enableServiceLinks"] for pod in pods.values())


def test_each_network_policy_selects_existing_pods(jobs: dict[str, dict[str, Any]]) -> None:
    policies = named("NetworkPolicy")
    for policy, name in [("bandscope-runs", "run"), *[("bandscope-steps", op) for op in OPS]]:
        labels = jobs[name]["spec"]["template"]["metadata"]["labels"]
        selected = policies[policy]["spec"]["podSelector"]["matchLabels"]
        assert selected.items() <= labels.items(), name
        other = policies["bandscope-steps" if name == "run" else "bandscope-runs"]
        assert not other["spec"]["podSelector"]["matchLabels"].items() <= labels.items(), name


@pytest.mark.parametrize("name", VARIANTS)
def test_the_policies_for_other_clusters_open_connections_of_runs_and_steps_and_nothing_else(
    jobs: dict[str, dict[str, Any]], name: str
) -> None:
    for policy in documents(name):
        spec = policy["spec"]
        assert spec["policyTypes"] == ["Egress"], "ingress stays as network-policy.yaml has it: none"
        (expression,) = spec["podSelector"]["matchExpressions"]
        assert expression["operator"] == "In"
        for job in jobs.values():
            labels = job["spec"]["template"]["metadata"]["labels"]
            assert spec["podSelector"]["matchLabels"].items() <= labels.items()
            assert labels[expression["key"]] in expression["values"]
        for rule in spec["egress"]:
            assert rule["to"] and rule["ports"], "empty would mean everything"
            for target in rule["to"]:
                assert set(target) in ({"ipBlock"}, {"namespaceSelector", "podSelector"})
                assert target.get("ipBlock", {}).get("cidr", "/32").endswith("/32")


def test_the_policy_for_cilium_opens_the_kubernetes_api_to_runs_alone(
    jobs: dict[str, dict[str, Any]],
) -> None:
    (policy,) = documents("network-policies/cilium.yaml")
    assert (policy["apiVersion"], policy["kind"]) == ("cilium.io/v2", "CiliumNetworkPolicy")
    wanted = policy["spec"]["endpointSelector"]["matchLabels"].items()
    selected = [
        name for name, job in jobs.items() if wanted <= job["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert selected == ["run"]
    (rule,) = policy["spec"]["egress"]
    assert rule["toEntities"] == ["kube-apiserver"]
    (ports,) = rule["toPorts"]
    assert {port["port"] for port in ports["ports"]} == {"443", "6443"}, "Cilium's ports are strings"


def test_the_output_of_a_step_is_on_s3_for_a_webserver_that_may_only_read(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    values = yaml.safe_load((KUBERNETES / "logs-s3.yaml").read_text())
    (reader,) = values["dagsterWebserver"]["envSecrets"]
    assert set(named("Secret")[reader["name"]]["stringData"]) == {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    }
    (store,) = re.findall(r"s3://your-bucket/(\S+)", (KUBERNETES / "settings.yaml").read_text())
    config = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    assert not config["prefix"].startswith(store), "the store lists what it contains"
    config |= {"bucket": s3_server.bucket, "endpointUrl": s3_server.endpoint}
    data = compute_logs(values["computeLogManager"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_access_key)

    def as_pod(name: str, key_id: str) -> Any:
        """The manager that a pod makes from the instance's configuration."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
        folder = tmp_path / name
        folder.mkdir()
        text = yaml.safe_dump(data["config"] | {"local_dir": str(folder)})
        found = ConfigurableClassData(data["module"], data["class"], text).rehydrate(as_type=object)
        return found

    log_key = ["a-run", "compute_logs", "analyze"]
    with as_pod("step", s3_server.access_key_id).open_log_stream(log_key, ComputeIOType.STDERR) as stream:
        stream.write("song 1 is read\n")
    assert s3_server.reader_key_id is not None
    read, _ = as_pod("webserver", s3_server.reader_key_id).get_log_data_for_type(
        log_key, ComputeIOType.STDERR, offset=0, max_bytes=1000
    )
    assert read == b"song 1 is read\n"


def test_the_wait_for_the_code_server_can_end() -> None:
    # The chart's `until nslookup NAME`: from 1.29 on, BusyBox's fails if one search domain does not have the name.
    assert VALUES["busybox"]["image"]["tag"] == "1.28"


def test_the_server_of_the_tagger_has_a_gpu_the_weights_and_a_service_that_steps_reach(
    jobs: dict[str, dict[str, Any]],
) -> None:
    pod = named("Deployment")["vllm"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    assert confined(pod["spec"], container)
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert container["image"] == IMAGE.replace("worker", "vllm")
    claims = [
        volume["persistentVolumeClaim"] for volume in pod["spec"]["volumes"] if volume["name"] == "weights"
    ]
    assert claims == [{"claimName": "bandscope-weights", "readOnly": True}]

    service = named("Service")["vllm"]
    labels = pod["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (port,) = service["spec"]["ports"]
    assert {each["name"]: each["containerPort"] for each in container["ports"]}[port["targetPort"]] == 8000
    options = dict(option.removeprefix("--").split("=", 1) for option in container["args"])
    server = ServerOptions(f"http://{service['metadata']['name']}:{port['port']}/v1")
    assert server.url in (KUBERNETES / "vllm.yaml").read_text()
    assert options["model"] == "/models/qwen2.5-omni"
    assert options["served-model-name"] == served_name("qwen2.5-omni", server)

    policies = named("NetworkPolicy")
    step = jobs["analyze"]["spec"]["template"]["metadata"]["labels"]
    out = policies["bandscope-steps-to-vllm"]["spec"]
    assert out["podSelector"]["matchLabels"].items() <= step.items()
    assert out["egress"][0]["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    into = policies["vllm"]["spec"]
    assert into["podSelector"]["matchLabels"].items() <= labels.items() and into["egress"] == []
    assert into["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= step.items()
    assert into["ingress"][0]["ports"] == out["egress"][0]["ports"] == [{"protocol": "TCP", "port": 8000}]


def test_with_a_server_for_the_tagger_a_step_that_separates_on_a_cpu_asks_for_no_gpu(tmp_path: Path) -> None:
    launcher = make_launcher(launcher_config(VALUES), tmp_path)
    settings = {"BANDSCOPE_TAGGER": "qwen2.5-omni", "BANDSCOPE_TAGGER_URL": "http://vllm:8000/v1"}
    embedded = load_location(**settings, BANDSCOPE_SEPARATOR="spleeter-2stems").ops["analyze"]
    assert "nvidia" not in json.dumps(build_job(launcher, "step_worker", IMAGE, embedded))
    demucs = load_location(**settings).ops["analyze"]
    assert "nvidia" in json.dumps(build_job(launcher, "step_worker", IMAGE, demucs))


def ports(policy: str) -> set[int]:
    """The destination ports that a policy allows."""
    rules = named("NetworkPolicy")[policy]["spec"]["egress"]
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_only_runs_may_reach_the_kubernetes_api() -> None:
    assert ports("bandscope-steps") == {53, VALUES["postgresql"]["service"]["port"], 443}
    assert ports("bandscope-runs") == ports("bandscope-steps") | {6443}


def test_a_field_unknown_to_the_launcher_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="image_pull_policies"):
        make_launcher({**launcher_config(VALUES), "image_pull_policies": "Always"}, tmp_path)


def test_the_instance_has_the_limits_of_deploy_dagster_yaml_except_for_two() -> None:
    chart = dagster_yaml(VALUES)
    reference = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
    reference["concurrency"]["pools"]["granularity"] = "op"
    reference["run_monitoring"]["start_timeout_seconds"] = 900  # a pod without a node never starts
    assert {part: chart[part] for part in reference if part != "storage"} == {
        part: reference[part] for part in reference if part != "storage"
    }
    assert (
        VALUES["postgresql"]["postgresqlScheme"] == reference["storage"]["postgres"]["postgres_db"]["scheme"]
    )


def test_every_variable_of_the_settings_exists() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("BANDSCOPE_"):
                patch.delenv(name)
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        settings = Settings()
    assert settings.executor == "kubernetes"
    assert settings.models_device == "cuda", "a step that requested a GPU must find one"
    fields = {f"BANDSCOPE_{field.upper()}" for field in Settings.model_fields}
    given = set(SETTINGS) | set(named("Secret")["bandscope-secrets"]["stringData"])
    assert {name for name in given if not name.startswith("DAGSTER_")} <= fields
    (code,) = VALUES["dagster-user-deployments"]["deployments"]
    assert "env" not in code, "settings are only in settings.yaml"


def test_an_invalid_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDSCOPE_EXECUTOR", "k8s")
    with pytest.raises(ValidationError, match="kubernetes"):
        Settings()


def test_the_weights_job_downloads_the_models_of_the_settings() -> None:
    weights = documents("weights.yaml")[1]["spec"]["template"]["spec"]
    (pull,), (verify,) = weights["initContainers"], weights["containers"]
    assert pull["args"][:3] == ["bandscope", "models", "pull"]
    assert set(pull["args"][3:]) == {SETTINGS["BANDSCOPE_SEPARATOR"], SETTINGS["BANDSCOPE_TAGGER"]}
    assert verify["args"] == ["bandscope", "models", "verify"]
    mounts = [
        {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        for container in (pull, verify)
    ]
    folder = SETTINGS["BANDSCOPE_MODELS_FOLDER"]
    assert [mount[folder] for mount in mounts] == [False, True]


def test_the_example_file_has_no_secrets() -> None:
    for secret in named("Secret").values():
        assert set(secret["stringData"].values()) == {"FILL-IN"}


def test_versions_agree() -> None:
    (code,) = VALUES["dagster-user-deployments"]["deployments"]
    images = [code["image"], VALUES["dagsterWebserver"]["image"], VALUES["dagsterDaemon"]["image"]]
    assert {image["tag"] for image in images} == {VERSION}
    weights = documents("weights.yaml")[1]["spec"]["template"]["spec"]
    assert {container["image"] for container in [*weights["initContainers"], *weights["containers"]]} == {
        IMAGE
    }
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    charts = re.findall(
        r"dagster/dagster (?:--version )?(\d\S+)", README + (KUBERNETES / "values.yaml").read_text()
    )
    assert len(charts) >= 2
    assert {chart.rstrip(":.") for chart in charts} == {pinned["dagster"]}
    for image in (VALUES["postgresql"]["image"], VALUES["busybox"]["image"]):
        assert re.match(r"\d+\.\d+", image["tag"]), image
