"""The log of a catalog's Delta table: its newest version, and the commit of the next one.

``deltalake`` reads the log and makes its checkpoints. The commits are written here: deltalake's own writer cannot
choose which files a commit replaces, and mixes their rows. A commit is one new object, whose name is the number of the
version, so that of two refreshes one gets the number: the local disk or the S3 server decides.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import uuid4

import polars as pl

from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore
from bandscope_dagster.storage.tables.lineage import PREFIX
from bandscope_dagster.storage.tables.schemas import Table

T = TypeVar("T")

FOLDER: Final = "delta"
LOG: Final = "_delta_log"
CONFIGURATION: Final = "delta.deletedFileRetentionDuration", "delta.logRetentionDuration"
_REFRESH_ID: Final = re.compile(r"[0-9a-f]{32}")  # becomes a part of a key
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")  # as Rust writes the number of an error


class DamagedDelta(Exception):
    """The log of a Delta table cannot be read."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A Parquet file of a version."""

    path: str  # below the folder of the table
    size: int  # bytes
    rows: int
    first: str  # the smallest song id
    last: str  # the largest one


@dataclass(frozen=True, slots=True)
class DeltaVersion:
    """A version of a catalog's Delta table."""

    number: int  # from 0
    refresh_id: str  # of the refresh that wrote it; empty if another program did
    made_with: str
    files: tuple[DataFile, ...]
    table_id: str
    schema: str  # JSON, as in the log
    configuration: Mapping[str, str]


def delta_key(table: Table) -> str:
    """The key of the folder of the table's Delta form: ``delta/<catalog>``."""
    return f"{FOLDER}/{table.name}"


def table_properties(days: int) -> dict[str, str]:
    """The properties of a Delta table whose versions of the last ``days`` days can be read."""
    # Only song_id has statistics. Without this property, deltalake's Arrow data set takes the missing statistics of all
    # other columns for bounds that are null, and a filter on such a column finds nothing.
    return dict.fromkeys(CONFIGURATION, f"interval {days} days") | {
        "delta.dataSkippingStatsColumns": "song_id"
    }


def can_have_delta(store: ObjectStore) -> bool:
    """False for a path with an escape of URLs, such as ``%20``, which deltalake would read as another path."""
    return not _ESCAPE.search(store.url)


def has_delta(store: ObjectStore, table: Table) -> bool:
    """True if the table has a log, which may be damaged."""
    return next(store.list(f"{delta_key(table)}/{LOG}"), None) is not None


def open_delta(store: ObjectStore, table: Table, version: int | None = None) -> Any:
    """The table as deltalake's ``DeltaTable``, in its newest version, or in one that is still kept.

    Raises:
        DamagedDelta: there is none, or its log cannot be read.
        OSError: the store does not answer.
    """
    from deltalake import DeltaTable

    key = delta_key(table)
    options = store.delta_options()

    def open_table() -> Any:
        opened = DeltaTable(_uri(store, key), storage_options=options)
        if version is not None:
            opened.load_as_version(version)
        return opened

    return explained(store, key, open_table)


def newest_version(store: ObjectStore, table: Table) -> DeltaVersion | None:
    """The newest version; None if there is no Delta table.

    Raises:
        DamagedDelta: its log cannot be read.
    """
    if not has_delta(store, table):
        return None
    opened = open_delta(store, table)
    about = commit_info(store, table, opened.version())

    def read() -> DeltaVersion:
        metadata = opened.metadata()
        return DeltaVersion(
            opened.version(),
            found if _REFRESH_ID.fullmatch(found := str(about.get(f"{PREFIX}refresh_id"))) else "",
            about.get(f"{PREFIX}made_with", ""),
            tuple(data_files(opened)),
            str(metadata.id),
            opened.schema().to_json(),
            metadata.configuration,
        )

    return explained(store, delta_key(table), read)


def commit_info(store: ObjectStore, table: Table, number: int) -> dict[str, Any]:
    """The entries of a version's commit about itself; empty if it was deleted, and is in a checkpoint only.

    deltalake's ``history`` finds no commits in a folder with ``#`` or ``?`` in its path.

    Raises:
        DamagedDelta: the commit cannot be read.
    """
    try:
        lines = store.read(_commit_key(table, number)).splitlines()
        actions: list[dict[str, dict[str, Any]]] = [json.loads(line) for line in lines if line.strip()]
        return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise DamagedDelta(f"{store.uri(_commit_key(table, number))} cannot be read ({error})") from error


def commit(
    store: ObjectStore,
    table: Table,
    base: DeltaVersion | None,
    added: Collection[DataFile],
    removed: Collection[DataFile],
    info: Mapping[str, str],
    configuration: Mapping[str, str],
) -> int:
    """Make ``base``, without the files ``removed`` and with ``added``, the next version; returns its number.

    ``info`` is about the refresh; its names get the prefix ``bandscope.``.

    Raises:
        ObjectChanged: another refresh has made the next version.
    """
    now = int(datetime.now(UTC).timestamp() * 1000)
    number = 0 if base is None else base.number + 1
    actions: list[dict[str, Any]] = [{"commitInfo": _commit_info(info, now, everything=base is None)}]
    schema = _schema(table)
    if base is None:
        actions.append({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
    if base is None or json.loads(base.schema) != json.loads(schema) or base.configuration != configuration:
        metadata = {
            "id": str(uuid4()) if base is None else base.table_id,
            "name": table.name,
            "description": table.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema,
            "partitionColumns": [],
            "configuration": dict(configuration),
            "createdTime": now,
        }
        actions.append({"metaData": metadata})
    actions += [{"remove": _removal(each, now)} for each in removed]
    actions += [{"add": _addition(each, now)} for each in added]
    data = "\n".join(json.dumps(action, ensure_ascii=False) for action in actions).encode()
    key = _commit_key(table, number)
    if not store.put_new(key, data):
        raise ObjectChanged(f"{store.uri(key)} was written by another refresh")
    return number


def has_commit(store: ObjectStore, table: Table, number: int) -> bool:
    """True if a version is committed, or if the store does not say: its files must stay then."""
    try:
        return store.head(_commit_key(table, number)) is not None
    except OSError:
        return True


def explained(store: ObjectStore, key: str, operation: Callable[[], T]) -> T:
    """The result of ``operation``, which uses deltalake. A fault of the store is an OSError with store and cause.

    Raises:
        DamagedDelta: what is stored is no Delta table.
    """
    from deltalake.exceptions import DeltaError

    def attempt() -> T:
        try:
            return operation()
        except FileNotFoundError as error:
            raise DamagedDelta(str(error)) from error
        except OSError as error:
            found = _OS_ERROR.search(str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), str(error)) from error  # Python chooses the subclass by the number

    try:
        return store.call(key, attempt)
    except (DeltaError, ValueError) as error:
        raise DamagedDelta(f"{store.uri(key)} cannot be read ({str(error).partition(chr(10))[0]})") from error


def _uri(store: ObjectStore, key: str) -> str:
    """The address for deltalake, which parses that of S3 as a URL."""
    uri = store.uri(key)
    return f"s3://{quote(uri.removeprefix('s3://'))}" if uri.startswith("s3://") else uri


def _commit_key(table: Table, number: int) -> str:
    return f"{delta_key(table)}/{LOG}/{number:020}.json"


def data_files(opened: Any) -> Iterator[DataFile]:
    """The files of a version. A file without bounds of its songs, of another writer, may have any song."""
    names = ("path", "size_bytes", "num_records", "min.song_id", "max.song_id")
    rows = pl.DataFrame(opened.get_add_actions(flatten=True))
    rows = rows.with_columns(pl.lit(None).alias(name) for name in names if name not in rows.columns)
    for path, size, count, first, last in rows.select(names).iter_rows():
        bounds = ("", "\U0010ffff") if first is None or last is None else (first, last)
        yield DataFile(path, size, count or 0, *bounds)


def _schema(table: Table) -> str:
    """The columns with their types and the metadata of their fields, as JSON for the log."""
    from deltalake import Schema

    return Schema.from_arrow(table.schema).to_json()


def _commit_info(info: Mapping[str, str], now: int, *, everything: bool) -> dict[str, Any]:
    return {
        "timestamp": now,
        "operation": "CREATE TABLE AS SELECT" if everything else "WRITE",
        "operationParameters": {"mode": "Overwrite"},
        "isBlindAppend": False,
        "engineInfo": "bandscope",
    } | {PREFIX + name: text for name, text in info.items()}


def _addition(file: DataFile, now: int) -> dict[str, Any]:
    stats: dict[str, Any] = {"numRecords": file.rows, "nullCount": {"song_id": 0}}
    stats |= {"minValues": {"song_id": file.first}, "maxValues": {"song_id": file.last}}
    return {
        "path": file.path,
        "partitionValues": {},
        "size": file.size,
        "modificationTime": now,
        "dataChange": True,
        "stats": json.dumps(stats),
    }


def _removal(file: DataFile, now: int) -> dict[str, Any]:
    return {
        "path": file.path,
        "deletionTimestamp": now,
        "dataChange": True,
        "extendedFileMetadata": True,
        "partitionValues": {},
        "size": file.size,
    }
