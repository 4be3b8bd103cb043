"""A real Ray cluster on this machine; each node has its own processes and ports and can be killed alone."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import requests
from daemon import end_group, wait_for
from ray.job_submission import JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

START_TIMEOUT_S = 300
OBJECT_STORE_BYTES = 80 * 2**20  # the minimum; Bandscope stores nothing there
LOCALHOST = "127.0.0.1"

# Ray notices a dead node within seconds instead of half a minute. It also starts no workers in advance: on two cores,
# nine of them slow everything down.
WATCHFUL = {
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "15000",
    "RAY_health_check_failure_threshold": "4",
}


@dataclass(frozen=True)
class RayCluster:
    """A head node and the nodes that joined it, each with the CPUs for one step."""

    address: str  # host:port that nodes join
    dashboard: str  # URL that takes jobs
    environment: Mapping[str, str]
    folder: Path
    nodes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)  # by name

    def client(self) -> JobSubmissionClient:
        """A client that lists jobs."""
        return JobSubmissionClient(self.dashboard)

    def alive(self) -> dict[str, str]:
        """Id → name of the nodes that are alive according to the cluster."""
        try:
            found = list_nodes(
                address=self.dashboard, filters=[("state", "=", "ALIVE")], raise_on_missing_output=False
            )
        except (RayStateApiException, requests.RequestException):  # while the head starts
            return {}
        return {node.node_id: node.node_name for node in found}

    def start(self, name: str, *options: str, gpus: int) -> None:
        """Start a node with this number of GPUs. Ray believes it; no real GPU is needed."""
        programs = Path(sys.executable).parent
        common = {
            "--node-name": name,
            "--node-ip-address": LOCALHOST,
            "--dashboard-agent-listen-port": 0,
            "--num-cpus": 3,
            "--num-gpus": gpus,
            "--object-store-memory": OBJECT_STORE_BYTES,
        }
        flags = [f"{option}={value}" for option, value in common.items()]
        command = [str(programs / "ray"), "start", "--block", "--disable-usage-stats", *flags, *options]
        found = os.environ | WATCHFUL | self.environment
        found["PATH"] = f"{programs}{os.pathsep}{found['PATH']}"  # jobs call `dagster` without a path
        with (self.folder / f"{name}.log").open("wb") as log:
            self.nodes[name] = subprocess.Popen(
                command,
                env={name: value for name, value in found.items() if name != "RAY_ADDRESS"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def join(self, *names: str, gpus: int) -> None:
        """Start other nodes one after the other, and wait until the cluster has them.

        If two start together on one machine, one crashes, and Ray notices that only after 30 s.
        """

        def joined(name: str) -> bool:
            # Ray gives a node 30 s to start, which may be too short on a busy machine.
            if name not in self.nodes or self.nodes[name].poll() is not None:
                self.start(name, "--address", self.address, gpus=gpus)
            return name in self.alive().values()

        for name in names:
            wait_for(f"node {name} joins", partial(joined, name), START_TIMEOUT_S, every_s=1)

    def kill(self, name: str) -> None:
        """Kill a node and all processes on it, as a power cut does."""
        process = self.nodes.pop(name)
        # Jobs have their own process groups.
        running = psutil.Process(process.pid).children(recursive=True)
        end_group(process)
        for each in running:
            with suppress(psutil.NoSuchProcess):
                each.kill()


@contextmanager
def run_ray_cluster(environment: Mapping[str, str], *, gpus: int) -> Iterator[RayCluster]:
    """Start a cluster with one node, "head", which has ``gpus`` GPUs.

    All jobs get ``environment``. Its ``RAY_ADDRESS`` is the URL at which the head accepts jobs.
    """
    # Not in pytest's folders: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        port, client = free_ports(2)
        dashboard = environment["RAY_ADDRESS"]
        cluster = RayCluster(f"{LOCALHOST}:{port}", dashboard, environment, Path(folder))
        try:
            cluster.start(
                "head",
                *("--head", "--port", str(port), "--temp-dir", str(Path(folder) / "ray")),
                *("--dashboard-host", LOCALHOST, "--dashboard-port", dashboard.rpartition(":")[2]),
                *("--ray-client-server-port", str(client)),
                gpus=gpus,
            )
            wait_for("the head is up", cluster.alive, START_TIMEOUT_S, every_s=1)
            yield cluster
        finally:
            for name in list(cluster.nodes):
                cluster.kill(name)


def free_ports(count: int) -> list[int]:
    """Unused ports outside the range of Ray's workers (10002 to 19999)."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOCALHOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
