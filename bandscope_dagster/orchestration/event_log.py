"""Dagster's event log in SQLite with its connections kept open: the same files, a quarter of the CPU time.

A song is about twenty events. Dagster 1.13 opens the database again for each of their statements: SQLAlchemy then
compiles every statement again, and SQLite writes its write-ahead log into the database whenever the last connection
closes. Here the connections stay open, and the tables and columns of the schema are looked up once.

A home names this class in its ``dagster.yaml``. Everything works without it too. ``docs/event-log.md`` has the figures
and says when to delete it.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, Final, Self

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.event import listen
from sqlalchemy.pool import StaticPool

from bandscope_dagster.orchestration.private_api import (
    INDEX_SHARD_NAME,
    ConfigurableClassData,
    SqliteEventLogStorage,
    StringSource,
)

BUSY_TIMEOUT_S: Final = 60.0  # how long a process waits for another that writes; Dagster's own value
KEPT_OPEN: Final = 3  # databases, of about 3 MB each: the index, and those of the last used runs


class SqliteEventLog(SqliteEventLogStorage):
    """The event log of a home, in the same files as Dagster's default."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._in_use: dict[str, Connection] = {}
        self._columns_there: set[str] = set()
        self._tables_there: set[str] = set()
        self._partitions: dict[str, tuple[Engine, int, dict[str, None]]] = {}
        super().__init__(base_dir, inst_data)
        self._db_lock = RLock()  # reentrant, because our methods hold it around those of the base class

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The configuration in ``dagster.yaml``: ``home``, the folder of that file."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """The event log of a home."""
        return cls(str(Path(config_value["home"]) / "history" / "runs"), inst_data)

    def get_dynamic_partitions(self, partitions_def_name: str) -> Sequence[str]:
        """All songs, in the order of their registration.

        Creating a run asks for them a dozen times, at half a second each for 100,000 songs.
        """
        return list(self._registered(partitions_def_name))

    def has_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> bool:
        """True if the song is registered.

        The UI's page of an asset's checks asks for every song and check, with a statement for each answer.
        """
        return partition_key in self._registered(partitions_def_name)

    def _registered(self, partitions_def_name: str) -> dict[str, None]:
        """All songs, as an ordered set. They are read again only if the database has changed."""
        with self._connect(INDEX_SHARD_NAME) as connection:
            # Changes when another connection has written. Only values of the same connection can be compared.
            # https://www.sqlite.org/pragma.html#pragma_data_version
            version = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            known = self._partitions.get(partitions_def_name)
            if known is None or known[0] is not connection.engine or known[1] != version:
                found = dict.fromkeys(super().get_dynamic_partitions(partitions_def_name))
                known = self._partitions[partitions_def_name] = (connection.engine, version, found)
            return known[2]

    def add_dynamic_partitions(self, partitions_def_name: str, partition_keys: Sequence[str]) -> None:
        """Register songs."""
        with self._db_lock:
            super().add_dynamic_partitions(partitions_def_name, partition_keys)
            self._partitions.clear()

    def delete_dynamic_partition(self, partitions_def_name: str, partition_key: str) -> None:
        """Forget a song."""
        with self._db_lock:
            super().delete_dynamic_partition(partitions_def_name, partition_key)
            self._partitions.clear()

    def has_table(self, table_name: str) -> bool:
        """True if the schema has the table."""
        # Dagster asks several times for every event, and tables are never removed.
        if table_name not in self._tables_there:
            if not super().has_table(table_name):
                return False
            self._tables_there.add(table_name)
        return True

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if column_name not in self._columns_there:
            if not super()._has_asset_key_col_on_connection(conn, column_name):
                return False
            self._columns_there.add(column_name)
        return True

    def wipe(self) -> None:
        """Delete everything, for tests and for `dagster run wipe`."""
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()
            super().wipe()

    @contextmanager
    def _connect(self, shard: str) -> Generator[Connection]:
        """A connection in a transaction: the thread's current one if it has one for this database."""
        with self._db_lock:
            if shard in self._in_use:
                yield self._in_use[shard]
                return
            with self._engine(shard).connect() as connection, connection.begin():
                self._in_use[shard] = connection
                try:
                    yield connection
                finally:
                    del self._in_use[shard]

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.pop(shard, None)
        if engine is None:
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=StaticPool,
                # The lock keeps two threads from using it at once.
                connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
            )
            listen(engine, "connect", _commit_without_waiting_for_the_disk)
            if shard not in self._initialized_dbs:
                self._initdb(engine, for_index_shard=shard == INDEX_SHARD_NAME)
                self._initialized_dbs.add(shard)
        self._engines[shard] = engine
        for idle in [name for name in self._engines if name not in self._in_use][: -KEPT_OPEN or None]:
            self._engines.pop(idle).dispose()
        return engine


def _commit_without_waiting_for_the_disk(connection: sqlite3.Connection, _: object) -> None:
    """Commit faster: with a write-ahead log only a crash of the machine loses anything, the last moments.

    https://www.sqlite.org/pragma.html#pragma_synchronous
    """
    connection.execute("PRAGMA synchronous=NORMAL")
