"""The parts of Dagster's Helm chart that Bandscope depends on: from our values to the launcher and the dagster.yaml.

It does what the chart's templates do, and replaces `helm template` in tests, because no package registry has the chart.
"""

import re
from collections.abc import Mapping
from typing import Any

RELEASE = "bandscope"
NAMESPACE = "bandscope"
FULL_NAME = f"{RELEASE}-dagster"

# The keys in these fields are names of Kubernetes and are not changed.
_OF_KUBERNETES = {"resources", "security_context", "volumes", "volume_mounts", "labels"}


def snake_case(name: str) -> str:
    """``envSecrets`` → ``env_secrets``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def launcher_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of ``K8sRunLauncher``, from ``runLauncher.config.k8sRunLauncher``."""
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    config: dict[str, Any] = {
        "job_namespace": NAMESPACE,
        "service_account_name": FULL_NAME,
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": f"{FULL_NAME}-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
    }
    for field, value in values["runLauncher"]["config"]["k8sRunLauncher"].items():
        name = snake_case(field)
        if name in ("env_config_maps", "env_secrets"):
            config[name] = [source["name"] for source in value]
        elif name == "run_k8s_config":
            config[name] = {snake_case(part): fields for part, fields in value.items()}
        else:
            assert name in _OF_KUBERNETES or not isinstance(value, dict), f"{field}: unknown to this module"
            config[name] = value
    return config


def compute_logs(values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the instance's configuration about the output of steps."""
    if values["type"] == "NoOpComputeLogManager":
        return {"module": "dagster._core.storage.noop_compute_log_manager", "class": values["type"]}
    assert values["type"] == "S3ComputeLogManager", f"{values['type']}: unknown to this module"
    fields = values["config"]["s3ComputeLogManager"]
    known = {"bucket", "prefix", "endpointUrl", "skipEmptyFiles", "uploadInterval", "region"}
    assert set(fields) <= known, f"{set(fields) - known}: unknown to this module"
    return {
        "module": "dagster_aws.s3.compute_log_manager",
        "class": values["type"],
        "config": {snake_case(name): value for name, value in fields.items()},
    }


def dagster_yaml(values: Mapping[str, Any]) -> dict[str, Any]:
    """The instance's configuration. Webserver and daemon read it and pass it to runs and steps."""
    server = values["postgresql"]
    storage = {
        "postgres_db": {
            "username": server["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": server["postgresqlHost"],
            "db_name": server["postgresqlDatabase"],
            "port": server["service"]["port"],
            "params": server["postgresqlParams"],
            "scheme": server["postgresqlScheme"],
        }
    }
    daemon = values["dagsterDaemon"]
    assert not any(daemon[part]["enabled"] for part in ("runCoordinator", "runMonitoring", "runRetries"))
    return {
        "scheduler": {"module": "dagster._core.scheduler", "class": "DagsterDaemonScheduler"},
        "schedule_storage": {
            "module": "dagster_postgres.schedule_storage",
            "class": "PostgresScheduleStorage",
            "config": storage,
        },
        "run_storage": {
            "module": "dagster_postgres.run_storage",
            "class": "PostgresRunStorage",
            "config": storage,
        },
        "event_log_storage": {
            "module": "dagster_postgres.event_log",
            "class": "PostgresEventLogStorage",
            "config": storage,
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": launcher_config(values),
        },
        "compute_logs": compute_logs(values["computeLogManager"]),
        "sensors": {snake_case(name): value for name, value in daemon["sensors"].items()},
        "telemetry": values["telemetry"],
        "retention": {
            kind: {"purge_after_days": values["retention"][kind]["purgeAfterDays"]}
            for kind in ("sensor", "schedule")
        },
        **values["additionalInstanceConfig"],
    }
