"""A real PostgreSQL server on its own port while a block of code runs."""

import os
import signal
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.servers import postgres
from deploy.servers.leftovers import MARK, guarded
from deploy.servers.postgres import START_TIMEOUT_S, Database, start_postgres
from deploy.servers.processes import free_ports, wait_until

__all__ = ["Database", "PostgresServer", "run_postgres"]


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server."""

    server: postgres.PostgresServer

    @property
    def port(self) -> int:
        """The TCP port of the server."""
        return self.server.port

    def database(self) -> Database:
        """Create an empty database."""
        return self.server.database(f"dagster_{uuid.uuid4().hex}")

    def is_up(self) -> bool:
        """True if the server accepts connections."""
        return self.server.is_up()


@contextmanager
def run_postgres() -> Generator[PostgresServer]:
    """Start PostgreSQL with its data in a new folder; stop it and delete the folder at the end."""
    # Not in pytest's folders: under root, the server runs as another user, who may not enter them.
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, guarded(mark):
        (port,) = free_ports(1)
        server = start_postgres(
            Path(folder) / "data",
            port,
            uuid.uuid4().hex,
            Path(folder) / "server.log",
            os.environ | {MARK: mark},
        )
        try:
            wait_until(
                "PostgreSQL takes connections", server.is_up, server.process, timeout_s=START_TIMEOUT_S
            )
            yield PostgresServer(server)
        finally:
            server.process.end(signal.SIGQUIT)  # at once: its data is not needed any more
