"""The pods of two steps without a cluster: each with its own command, environment and home."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster._grpc.types import ExecuteStepArgs
from helm_chart import dagster_yaml, launcher_config
from kubernetes.config import ConfigException
from kubernetes_jobs import SETTINGS, VALUES, build_job, make_launcher
from platforms import PER_SONG, Platform, local_settings, song_bytes
from postgres import run_postgres

from bandscope_dagster.definitions import defs
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Pods:
    """The pods of steps, one after the other; they share only the database and the store."""

    folder: Path
    store: Path

    def run_step(self, job: Mapping[str, Any], args: ExecuteStepArgs) -> subprocess.CompletedProcess[str]:
        """The command of a step's pod, in the environment of its container."""
        (op,) = args.step_keys_to_execute or []
        home = self.folder / f"pod-{op}"
        home.mkdir()
        of_this_machine = {
            "DAGSTER_HOME": str(home),
            "HOME": str(home),
            "TMPDIR": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BANDSCOPE_STORAGE": str(self.store),
            "BANDSCOPE_DEVICE": "cpu",
            "BANDSCOPE_SEPARATOR": "spleeter-2stems",
            "BANDSCOPE_TAGGER": "bandscope-instruments",
        }
        (container,) = job["spec"]["template"]["spec"]["containers"]
        given = {variable["name"]: variable.get("value") for variable in container["env"]}
        secrets = {name: os.environ[name] for name, value in given.items() if value is None}
        arguments = {variable["name"]: variable["value"] for variable in args.get_command_env()}
        return subprocess.run(
            args.get_command_args(skip_serialized_namedtuple=True),
            env=SETTINGS | given | secrets | arguments | of_this_machine,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of our values, over a real PostgreSQL."""
    with run_postgres() as server:
        variables = server.database().environment()
        monkeypatch.setenv("DAGSTER_PG_PASSWORD", variables["DAGSTER_POSTGRES_PASSWORD"])
        values = VALUES | {
            "postgresql": VALUES["postgresql"]
            | {
                "postgresqlHost": variables["DAGSTER_POSTGRES_HOST"],
                "postgresqlDatabase": variables["DAGSTER_POSTGRES_DB"],
                "postgresqlUsername": variables["DAGSTER_POSTGRES_USER"],
                "service": {"port": int(variables["DAGSTER_POSTGRES_PORT"])},
                "postgresqlParams": {},  # this server has no TLS
            }
        }
        home = tmp_path / "daemon"
        home.mkdir()
        (home / "dagster.yaml").write_text(yaml.safe_dump(dagster_yaml(values)))
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home))) as opened:
            yield opened


def test_steps_in_their_own_pods_compute_a_song_without_a_token_for_the_cluster(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with pytest.raises(ConfigException, match="not set"):
        assert instance.run_launcher, "it reads the pod's token, which does not exist"
    assert instance.get_concurrency_config().pool_config.pool_granularity.value == "op"
    pods = Pods(tmp_path, tmp_path / "store")
    pods.store.mkdir()
    platform = Platform(local_settings(pods.store), instance)
    platform.upload({"one.wav": song_bytes(1, 0.6)})
    (song,) = platform.songs
    process_songs = defs.resolve_job_def("process_songs")
    location = RepositoryPythonOrigin(
        sys.executable,
        ModuleCodePointer("bandscope_dagster.definitions", "defs"),
        entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
    )
    origin = JobPythonOrigin(process_songs.name, location)
    run = instance.create_run_for_job(
        process_songs,
        tags={RANGE_START_TAG: song, RANGE_END_TAG: song},
        job_code_origin=origin,
        status=dg.DagsterRunStatus.STARTED,
    )
    launcher = make_launcher(launcher_config(VALUES), tmp_path)
    ref = instance.get_ref()
    shutil.rmtree(tmp_path / "daemon")  # other pods cannot see the disk of the daemon's pod
    for op in ("songs", "analyze"):
        job = build_job(launcher, "step_worker", "worker:1", process_songs.graph.node_named(op).tags)
        args = ExecuteStepArgs(
            origin, run.run_id, [op], ref, known_state=KnownExecutionState(), should_verify_step=True
        )
        done = pods.run_step(job, args)
        assert done.returncode == 0, done.stdout + done.stderr
    ended = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    assert [entry.step_key for entry in ended] == ["songs", "analyze"]
    for table in PER_SONG:
        assert platform.status(table) == {song: "MATERIALIZED"}, table
    assert not (tmp_path / "daemon").exists(), "a step must not write to the home of the daemon"
