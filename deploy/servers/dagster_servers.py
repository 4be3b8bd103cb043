"""Dagster's servers on one home: the code server over gRPC, webservers and the daemon, and questions to them."""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.servers.processes import LOOPBACK, ServerProcess

LOCATION: Final = "bandscope"
MODULE: Final = "bandscope_dagster.definitions"
START_TIMEOUT_S: Final = 180.0
ANSWER_TIMEOUT_S: Final = 30.0
GRPC_SERVICE: Final = "DagsterApi"

WORKSPACE_YAML: Final = """\
load_from:
  - grpc_server:
      host: {host}
      port: {port}
      location_name: {location}
"""


class Refused(Exception):
    """The webserver answered with an error; the message is its own."""


@dataclass(frozen=True, slots=True)
class DagsterServers:
    """Starts servers on ``DAGSTER_HOME`` of their ``environment``; each prints to ``<logs>/<name>.log``."""

    environment: Mapping[str, str]
    logs: Path
    code_port: int

    def write_workspace(self, home: Path) -> None:
        """Write ``workspace.yaml`` into the home, by which the other servers find the code server."""
        (home / "workspace.yaml").write_text(
            WORKSPACE_YAML.format(host=LOOPBACK, port=self.code_port, location=LOCATION)
        )

    def start_code_server(self) -> ServerProcess:
        """Start the code server, which serves the definitions and launches the runs."""
        options = ["-m", MODULE, "-h", LOOPBACK, "-p", str(self.code_port), "--location-name", LOCATION]
        return self._start("code-server", ["dagster", "code-server", "start", *options])

    def start_webserver(self, port: int, *, read_only: bool = False) -> ServerProcess:
        """Start a webserver; a ``read_only`` one refuses changes."""
        options = ["-w", self._workspace, "-h", LOOPBACK, "-p", str(port)]
        name = "webserver-read-only" if read_only else "webserver"
        return self._start(name, ["dagster-webserver", *options, *(["--read-only"] if read_only else [])])

    def start_daemon(self) -> ServerProcess:
        """Start the daemon: sensors, the queue of runs, monitoring, backfills."""
        return self._start("daemon", ["dagster-daemon", "run", "-w", self._workspace])

    def start_pool_limit(self, pool: str, limit: int) -> ServerProcess:
        """Start the command that limits the runs of a pool at once; it creates the tables of a new database."""
        return self._start("pool-limit", ["dagster", "instance", "concurrency", "set", pool, str(limit)])

    @property
    def _workspace(self) -> str:
        return str(Path(self.environment["DAGSTER_HOME"]) / "workspace.yaml")

    def _start(self, name: str, command: Sequence[str]) -> ServerProcess:
        program = Path(sys.executable).with_name(command[0])
        return ServerProcess.start(
            name, [program, *command[1:]], self.logs / f"{name}.log", environment=self.environment
        )


def code_server_serves(port: int) -> bool:
    """True if the code server's own health check succeeds."""
    with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=GRPC_SERVICE), timeout=5)
        except grpc.RpcError:
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING


@dataclass(frozen=True, slots=True)
class Webserver:
    """The GraphQL API of a webserver, which the UI uses too."""

    port: int

    @property
    def url(self) -> str:
        """Its address for a browser."""
        return f"http://{LOOPBACK}:{self.port}"

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of the answer to a query or mutation.

        Raises:
            Refused: the answer is an error.
        """
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as response:
            answer = json.load(response)
        if "errors" in answer:
            raise Refused(str(answer["errors"]))
        return answer["data"]

    def is_up(self) -> bool:
        """True if it answers, with every code location loaded.

        Raises:
            Refused: a code location cannot be loaded.
        """
        try:
            found = self.ask(
                "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus"
                " locationOrLoadError { ... on PythonError { message } } } } } }"
            )["workspaceOrError"]["locationEntries"]
        except (urllib.error.URLError, OSError):
            return False
        for entry in found:
            if message := (entry["locationOrLoadError"] or {}).get("message"):
                raise Refused(f"the code location {entry['name']} cannot be loaded: {message}")
        return bool(found) and all(entry["loadStatus"] == "LOADED" for entry in found)

    def daemons(self, since: float) -> dict[str, bool]:
        """Required daemon → True if it is healthy and has a heartbeat after ``since`` (Unix time).

        Dagster itself reports a daemon as healthy for half an hour after its last heartbeat.
        """
        found = self.ask(
            "{ instance { daemonHealth { allDaemonStatuses"
            " { daemonType required healthy lastHeartbeatTime } } } }"
        )
        return {
            each["daemonType"]: bool(each["healthy"]) and each["lastHeartbeatTime"] > since
            for each in found["instance"]["daemonHealth"]["allDaemonStatuses"]
            if each["required"]
        }

    def turn_on(self, sensor: str) -> None:
        """Turn a sensor on, like the switch in the UI.

        Raises:
            Refused: this webserver does not allow it.
        """
        answer = self.ask(
            "mutation($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename"
            " ... on Sensor { sensorState { status } } ... on UnauthorizedError { message }"
            " ... on SensorNotFoundError { message } ... on PythonError { message } } }",
            selector={
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "sensorName": sensor,
            },
        )["startSensor"]
        if answer["__typename"] != "Sensor":
            raise Refused(f"{answer['__typename']}: {answer['message']}")

    def runs(self, *, sensor: str) -> list[dict[str, str]]:
        """The runs that a sensor requested, the newest first: ``runId`` and ``status``."""
        return self.ask(
            "query($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 100)"
            " { ... on Runs { results { runId status } } } }",
            filter={"tags": [{"key": "dagster/sensor_name", "value": sensor}]},
        )["runsOrError"]["results"]

    def materialized(self, asset: str, partitions: Sequence[str]) -> set[str]:
        """The materialized ones of the partitions."""
        node = self.ask(
            "query($asset: AssetKeyInput!, $partitions: [String!]) { assetNodeOrError(assetKey: $asset)"
            " { ... on AssetNode { assetMaterializations(partitions: $partitions) { partition } } } }",
            asset={"path": [asset]},
            partitions=list(partitions),
        )["assetNodeOrError"]
        return {found["partition"] for found in node["assetMaterializations"]}
