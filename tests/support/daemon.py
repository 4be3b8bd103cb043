"""Real Dagster daemons and webservers with their own homes, and the requests that the UI sends to them."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
import pytest
from command_server import Command, start_server

from bandscope_dagster.orchestration.home import DAGSTER_YAML

T = TypeVar("T")

START_TIMEOUT_S = 300.0
TESTS = Path(__file__).parent  # the folder that the daemon imports from

# As deploy/dagster.yaml: one run with a model at once.
LIMITED_YAML = DAGSTER_YAML.replace("default_limit: 2", "default_limit: 1")

# For a home whose daemon or runs are killed. As in deploy/dagster.yaml, no time limits the start of a process.
MONITORED_YAML = (
    LIMITED_YAML
    + """\
run_monitoring:
  enabled: true
  start_timeout_seconds: 86400
  poll_interval_seconds: 1
  free_slots_after_run_end_seconds: 3
"""
).replace("max_retries: 2", "max_retries: 3")


def wait_for(
    what: str, found: Callable[[], T | None], timeout_s: float = 600.0, *, every_s: float = 0.5
) -> T:
    """Call ``found`` until it returns a true value, and return that; fail with ``what`` at the timeout."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        answer = found()
        if answer:
            return answer
        time.sleep(every_s)
    raise AssertionError(f"timeout after {timeout_s:g} s: {what}")


def open_instance(home: Path) -> dg.DagsterInstance:
    """The Dagster instance of a home, as in a process whose DAGSTER_HOME is that home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))  # the home's dagster.yaml uses the variable
        return dg.DagsterInstance.from_config(str(home))


def ticks_of(instance: dg.DagsterInstance) -> list[object]:
    """All ticks of all sensors until now."""
    return [
        tick
        for state in instance.all_instigator_state()
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
    ]


@dataclass(frozen=True)
class Home:
    """A Dagster home, the settings of the processes on it, and the code location that they load."""

    folder: Path
    environment: Mapping[str, str]
    location: str

    @classmethod
    def make(
        cls,
        folder: Path,
        store: Path,
        *,
        location: str = "impatient_location",
        yaml: str = LIMITED_YAML,
        variables: Mapping[str, str] | None = None,
        **settings: object,
    ) -> "Home":
        """Make a home in ``folder`` for a store in ``store``.

        ``settings`` are environment variables without their prefix ``BANDSCOPE_``; ``variables`` are all others.
        """
        folder.mkdir()
        store.mkdir(exist_ok=True)
        (folder / "dagster.yaml").write_text(yaml)
        if "default_limit: 1" in yaml:
            # As deploy/README.md says: Dagster does not limit a pool until it knows it.
            with pytest.MonkeyPatch.context() as patch:
                for name, value in (variables or {}).items():
                    patch.setenv(name, value)
                with open_instance(folder) as instance:
                    instance.event_log_storage.set_concurrency_slots("gpu", 1)
        environment = {
            "DAGSTER_HOME": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
            "BANDSCOPE_STORAGE": str(store),
            "BANDSCOPE_DEVICE": "cpu",
            "BANDSCOPE_STEP_RETRIES": "0",
        }
        environment |= {f"BANDSCOPE_{name.upper()}": str(value) for name, value in settings.items()}
        return cls(folder, environment | dict(variables or {}), location)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """The Dagster instance of this home."""
        with open_instance(self.folder) as instance:
            yield instance

    def start_daemon(self) -> "Command | subprocess.Popen[bytes]":
        """Start a daemon. Its code server and its runs are in the same process group."""
        return self._start("fast_runs:daemon")

    @contextmanager
    def daemon(self) -> "Iterator[Command | subprocess.Popen[bytes]]":
        """Run a daemon while the block runs; kill it and all its child processes at the end."""
        process = self.start_daemon()
        try:
            yield process
        finally:
            end_group(process)

    @contextmanager
    def webserver(self) -> Iterator["Webserver"]:
        """Run a webserver while the block runs."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = self._start("fast_runs:webserver", "-h", "127.0.0.1", "-p", str(port))
        server = Webserver(f"http://127.0.0.1:{port}")
        try:
            wait_for("the webserver answers", server.is_up, START_TIMEOUT_S)
            yield server
        finally:
            end_group(process)

    def printed(self) -> str:
        """The output of all processes of this home."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("printed-*")))

    def _start(self, program: str, *arguments: str) -> "Command | subprocess.Popen[bytes]":
        number = len(list(self.folder.glob("printed-*")))
        return start_server(
            program,
            [*arguments, self.location],
            os.environ | self.environment,
            self.folder,
            self.folder / f"printed-{number:03}.txt",
        )


def end_group(process: "subprocess.Popen[bytes] | Command") -> None:
    """Kill a process and all others in its process group, and wait for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True, slots=True)
class Webserver:
    """The webserver's GraphQL API, the only one that the UI uses."""

    url: str

    def is_up(self) -> bool:
        """True if the webserver answers and the code location is loaded."""
        try:
            loaded = self.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }")
        except (OSError, urllib.error.URLError):
            return False
        return [entry["loadStatus"] for entry in loaded["workspaceOrError"]["locationEntries"]] == ["LOADED"]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of the answer to a query or mutation; fails if the answer is an error."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def launch_backfill(self, assets: Sequence[str], songs: Sequence[str]) -> str:
        """Launch a backfill as the UI does; return its id."""
        answer = self.ask(
            "mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params)"
            " { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            params={
                "assetSelection": [{"path": [asset]} for asset in assets],
                "partitionNames": list(songs),
            },
        )["launchPartitionBackfill"]
        assert "backfillId" in answer, answer
        return answer["backfillId"]

    def reexecute_backfill_from_failure(self, backfill_id: str) -> str:
        """Click "Re-execute from failure" on a backfill; return the new backfill's id."""
        answer = self.ask(
            "mutation($params: ReexecutionParams!) { reexecutePartitionBackfill(reexecutionParams: $params)"
            " { __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
            params={"parentRunId": backfill_id, "strategy": "FROM_FAILURE"},
        )["reexecutePartitionBackfill"]
        assert "backfillId" in answer, answer
        return answer["backfillId"]

    def launch_job(self, job: str, location: str = "impatient_location") -> str:
        """Click "Launch run" on a job without configuration; return the run's id."""
        answer = self.ask(
            "mutation($params: ExecutionParams!) { launchRun(executionParams: $params)"
            " { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            params={
                "selector": {
                    "repositoryLocationName": location,
                    "repositoryName": "__repository__",
                    "jobName": job,
                },
                "runConfigData": {},
                "mode": "default",
            },
        )["launchRun"]
        assert "run" in answer, answer
        return answer["run"]["runId"]

    def backfill_counts(self, backfill_id: str) -> dict[str, dict[str, int]]:
        """Asset → the counts on the backfill's page: targeted, materialized, failed and in progress."""
        answer = self.ask(
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {"
            " assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts { assetKey { path }"
            " numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed numPartitionsInProgress } } } } } }",
            id=backfill_id,
        )["partitionBackfillOrError"]
        shown = ("Targeted", "Materialized", "Failed", "InProgress")
        return {
            status["assetKey"]["path"][0]: {name: status[f"numPartitions{name}"] for name in shown}
            for status in answer["assetBackfillData"]["assetBackfillStatuses"]
        }
