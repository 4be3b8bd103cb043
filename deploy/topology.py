"""A whole shared deployment as processes on this machine: databases, code server, webservers, daemon."""

import fcntl
import json
import secrets
import shlex
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from bandscope_dagster.allocator import without_thread_caches
from bandscope_dagster.settings import Settings
from deploy.servers.dagster_servers import START_TIMEOUT_S, DagsterServers, Webserver, code_server_serves
from deploy.servers.leftovers import MARK, guarded, kill_marked
from deploy.servers.postgres import START_TIMEOUT_S as POSTGRES_TIMEOUT_S
from deploy.servers.postgres import Database, PostgresServer, start_postgres
from deploy.servers.processes import ServerFailure, ServerProcess, free_ports, is_listening, wait_until
from deploy.servers.seaweedfs import INTERNAL_PORTS, S3Server, start_seaweedfs
from deploy.servers.seaweedfs import START_TIMEOUT_S as S3_TIMEOUT_S

DAGSTER_YAML: Final = Path(__file__).with_name("dagster.yaml")
DATABASE: Final = "dagster"
PREFIX: Final = "store"  # in the bucket
SERVER_PORTS: Final = ("webserver", "read_only", "code_server", "postgres", "s3", *INTERNAL_PORTS)
END_WITHIN_S: Final = 30.0  # an interrupted run ends between two calls of a model

Step = Callable[[str], AbstractContextManager[None]]  # shows a text while a block of code runs


@dataclass(frozen=True, slots=True)
class Addresses:
    """Ports and credentials of the servers: created once per folder, so that a new start finds its data again."""

    ports: Mapping[str, int]  # by SERVER_PORTS
    password: str = field(repr=False)  # of PostgreSQL
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)

    @classmethod
    def of(cls, folder: Path, first_port: int | None) -> "Addresses":
        """The addresses of a folder; new ones if it has none. ``first_port`` and the ports after it replace its ports.

        Raises:
            ServerFailure: another program listens on one of the ports.
        """
        file = folder / "addresses.json"
        known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        if first_port is not None:
            known["ports"] = {name: first_port + place for place, name in enumerate(SERVER_PORTS)}
        known.setdefault("ports", dict(zip(SERVER_PORTS, free_ports(len(SERVER_PORTS)), strict=True)))
        for name in ("password", "access_key_id", "secret_access_key"):
            known.setdefault(name, secrets.token_hex(20))
        addresses = cls(**known)
        for name, port in addresses.ports.items():
            if is_listening(port):
                raise ServerFailure(
                    f"port {port}, for {name}, is in use; stop that program, or choose other ports with --first-port"
                )
        file.touch(0o600)
        file.write_text(json.dumps(asdict(addresses), indent=2))
        return addresses


class LocalStack:
    """All servers over one folder. Call ``stop`` in a ``finally``: it also ends a partial ``start``."""

    def __init__(self, folder: Path, first_port: int | None = None) -> None:
        """Lock the folder, and create it if needed.

        Raises:
            ServerFailure: another stack uses it, or a port is in use.
        """
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock = _lock(folder)
        self.addresses = Addresses.of(folder, first_port)
        ports = self.addresses.ports
        self.webserver, self.read_only = Webserver(ports["webserver"]), Webserver(ports["read_only"])
        self.s3 = S3Server(ports["s3"], self.addresses.access_key_id, self.addresses.secret_access_key)
        self.settings = Settings(
            storage=f"s3://{self.s3.bucket}/{PREFIX}",
            s3_endpoint=self.s3.endpoint,
            s3_region=self.s3.region,
            s3_access_key_id=self.s3.access_key_id,
            s3_secret_access_key=self.s3.secret_access_key,  # pyright: ignore[reportArgumentType]
        )
        self._mark = uuid.uuid4().hex
        self._guard = ExitStack()
        self._servers: list[tuple[ServerProcess, signal.Signals]] = []  # in the order of their start

    def variables(self) -> dict[str, str]:
        """The variables that ``bandscope`` and ``dagster`` need to use this stack."""
        ports = self.addresses.ports
        return {
            "DAGSTER_HOME": str(self.folder / "home"),
            **Database(ports["postgres"], DATABASE, self.addresses.password).environment(),
            "DAGSTER_EVENT_BATCH_SIZE": "500",
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "600",  # the process of a run may be slow to start
            "BANDSCOPE_STORAGE": self.settings.storage,
            "BANDSCOPE_S3_ENDPOINT": self.s3.endpoint,
            "BANDSCOPE_S3_REGION": self.s3.region,
            "BANDSCOPE_S3_ACCESS_KEY_ID": self.s3.access_key_id,
            "BANDSCOPE_S3_SECRET_ACCESS_KEY": self.s3.secret_access_key,
            "BANDSCOPE_UI_URL": self.webserver.url,
        }

    def exports(self) -> str:
        """``variables`` as lines for a shell."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self.variables().items())

    def start(self, step: Step, inherited: Mapping[str, str]) -> PostgresServer:
        """Start all servers, and return when they are healthy.

        Raises:
            ServerFailure: a server has ended, or is not healthy in time.
        """
        self._guard.enter_context(guarded(self._mark))
        environment = {**inherited, **self.variables(), MARK: self._mark}
        ports, data = self.addresses.ports, self.folder / "data"
        with step(f"PostgreSQL takes connections on port {ports['postgres']}"):
            (data / "s3").mkdir(parents=True, exist_ok=True)
            internal_ports = {name: ports[name] for name in INTERNAL_PORTS}
            postgres = start_postgres(
                data / "postgres", ports["postgres"], self.addresses.password, self.logs / "postgres.log",
                environment,
            )  # fmt: skip
            # After SIGTERM, PostgreSQL would wait for its clients.
            self._servers.append((postgres.process, signal.SIGINT))
            s3 = start_seaweedfs(self.s3, data / "s3", internal_ports, self.logs / "s3.log", environment)
            self._servers.append((s3, signal.SIGKILL))
            self.wait("PostgreSQL takes connections", postgres.is_up, POSTGRES_TIMEOUT_S, postgres.process)
            postgres.database(DATABASE)
        with step(f"the bucket {self.s3.bucket} takes an object at {self.s3.endpoint}"):
            self.wait("the S3 server takes an object", self.s3.takes_objects, S3_TIMEOUT_S, s3)
        # Less memory for runs over many songs: bandscope_dagster/allocator.py.
        allocator = {"MALLOC_ARENA_MAX": "1", **without_thread_caches()}
        dagster = DagsterServers(environment | allocator, self.logs, ports["code_server"])
        self._start_dagster(dagster, step)
        return postgres

    def _start_dagster(self, dagster: DagsterServers, step: Step) -> None:
        ports = self.addresses.ports
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        shutil.copy(DAGSTER_YAML, home)
        dagster.write_workspace(home)
        with step(f"the code server answers over gRPC on port {ports['code_server']}"):
            code_server = self._add(dagster.start_code_server())
            # At the same time: it creates the tables, which several processes must not do at once.
            limit = dagster.start_pool_limit("gpu", 1)
            self.wait("the pool's limit is set", limit.has_ended, START_TIMEOUT_S, code_server)
            if limit.process.returncode:
                limit.check()
            serves = lambda: code_server_serves(ports["code_server"])  # noqa: E731
            self.wait("the code server answers its health check", serves, START_TIMEOUT_S, code_server)
        began = time.time()
        webservers = [
            (self.webserver, self._add(dagster.start_webserver(ports["webserver"]))),
            (self.read_only, self._add(dagster.start_webserver(ports["read_only"], read_only=True))),
        ]
        daemon = self._add(dagster.start_daemon())
        for webserver, process in webservers:
            with step(f"{process.name} at {webserver.url}, with the code location loaded"):
                self.wait(f"{process.name} has loaded the code", webserver.is_up, START_TIMEOUT_S, process)
        with step("every daemon has sent a heartbeat"):
            self.wait(
                "every daemon is healthy",
                lambda: all(self.webserver.daemons(began).values()),
                START_TIMEOUT_S,
                daemon,
            )

    def wait(
        self, what: str, ready: Callable[[], object], timeout_s: float, server: ServerProcess | None = None
    ) -> None:
        """Wait until ``ready`` is true; ``server`` (by default the last started) is named if it is not."""
        server = server or self._servers[-1][0]
        wait_until(what, ready, server, timeout_s=timeout_s, others=[each for each, _ in self._servers])

    def check(self) -> None:
        """Check that every server runs.

        Raises:
            ServerFailure: one has ended.
        """
        for server, _ in self._servers:
            server.check()

    def stop(self, step: Step) -> list[str]:
        """End all servers, the last started first; returns a message for each process that had to be killed."""
        problems: list[str] = []
        for server, with_signal in reversed(self._servers):
            with step(f"{server.name} has ended"):
                try:
                    if not server.end(with_signal, END_WITHIN_S):
                        problems.append(f"{server.name} did not end within {END_WITHIN_S:g} s{server.tail()}")
                except ServerFailure as failure:
                    problems.append(str(failure))
        with step("no process is left, and no port"):
            problems += [f"left running: {left}" for left in kill_marked(self._mark)]
            ports = self.addresses.ports.items()
            problems += [f"port {port} of {name} still listens" for name, port in ports if is_listening(port)]
        self._guard.close()
        self._lock.close()
        return problems

    def _add(self, server: ServerProcess) -> ServerProcess:
        self._servers.append((server, signal.SIGTERM))
        return server


def _lock(folder: Path) -> TextIO:
    """The folder's lock, held until it is closed or this process ends."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ServerFailure(f"another stack uses {folder}; stop it, or choose another --folder") from None
    return lock
