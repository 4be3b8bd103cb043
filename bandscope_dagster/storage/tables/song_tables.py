"""Reads and writes a song's rows in one table. Rows are checked against the table's definition."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile, parse
from bandscope_dagster.storage.tables.lineage import PREFIX, SONG_ENTRY, Lineage, maker_entries
from bandscope_dagster.storage.tables.schemas import ArrowTable, Table, table_key

# Rows that are Python objects at the same time; the tag table of a two-hour song has 250,000.
ROWS_AT_ONCE = 4096
ROW_GROUP_ROWS = 65536  # small enough for readers to skip row groups, large enough to compress well

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """A written file."""

    key: str
    uri: str
    rows: int
    bytes: int


def write_table(
    store: ObjectStore,
    table: Table,
    rows: Sequence[Row] | ArrowTable,
    lineage: Lineage,
    notes: Mapping[str, str] = {},
) -> Written:
    """Write a song's rows in the given order as zstd Parquet. Replaces the song's file in this table.

    ``notes`` (name → text) are entries beside the lineage in the file's metadata.
    """
    key = table_key(table, lineage.song_id)
    data = _with_schema(table, rows if isinstance(rows, pa.Table) else arrow_table(table, rows))
    check_song(data, lineage.song_id, key)
    entries = lineage.to_metadata() | {PREFIX + name: text for name, text in notes.items()}
    data = data.replace_schema_metadata(entries | maker_entries(table))
    with store.create(key) as pending:
        pq.write_table(data, pending.file, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        size = pending.commit()
    return Written(key=key, uri=store.uri(key), rows=data.num_rows, bytes=size)


def write_error_row(store: ObjectStore, table: Table, song_id: str, error: str, lineage: Lineage) -> Written:
    """Record that the song has no result in ``table``, by one row with its id and the error."""
    empty: dict[str, Any] = dict.fromkeys(table.names)
    return write_table(store, table, [empty | {"song_id": song_id, "error": error}], lineage)


def read_table(
    store: ObjectStore, table: Table, song_id: str, columns: Sequence[str] | None = None
) -> ArrowTable | None:
    """The song's rows, with all columns or only ``columns``; None if the song has no file.

    If an older version wrote the file, new columns are null. If a newer version wrote it, its new columns are left out.
    Raises DamagedFile if the file cannot be read, or is the file of another song.
    """
    key = table_key(table, song_id)
    names = list(table.names if columns is None else columns)

    def read(file: BinaryIO) -> ArrowTable:
        return _of_this_version(table, names, pq.ParquetFile(file, pre_buffer=True).read(columns=names))

    try:
        data = parse(store, key, read)
    except FileNotFoundError:
        return None
    owner = (data.schema.metadata or {}).get(SONG_ENTRY, b"").decode(errors="replace")
    if owner and owner != song_id:
        raise DamagedFile(f"{store.uri(key)} is the file of another song, {owner}")
    return data


def _of_this_version(table: Table, names: Sequence[str], data: ArrowTable) -> ArrowTable:
    fields = [table.schema.field(name) for name in names]
    arrays = [
        data.column(field.name) if field.name in data.schema.names else pa.nulls(data.num_rows, field.type)
        for field in fields
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, data.schema.metadata))


def arrow_table(table: Table, rows: Iterable[Row]) -> ArrowTable:
    """The rows as an Arrow table. Every row must have exactly the table's columns, with values of their types."""
    parts: list[ArrowTable] = []
    left = iter(rows)
    while part := list(islice(left, ROWS_AT_ONCE)):
        parts.append(_arrow_part(table, part, first=ROWS_AT_ONCE * len(parts)))
    return pa.concat_tables(parts or [_arrow_part(table, [], first=0)]).combine_chunks()


def python_rows(data: ArrowTable, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows as dictionaries of Python values, with these columns."""
    for part in data.select(columns).to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from part.to_pylist()


def _arrow_part(table: Table, rows: Sequence[Row], first: int) -> ArrowTable:
    for number, row in enumerate(rows, first):
        missing, unknown = set(table.names) - set(row), set(row) - set(table.names)
        if missing or unknown:
            raise ValueError(
                f"{table.name}, row {number}: missing columns {sorted(missing)}, "
                f"unknown columns {sorted(unknown)}"
            )
    arrays: list[Any] = []
    for column in table.columns:
        try:
            arrays.append(pa.array([row[column.name] for row in rows], type=column.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"{table.name}.{column.name} must be {column.type}: {error}") from error
    return _with_schema(table, pa.Table.from_arrays(arrays, names=list(table.names)))


def _with_schema(table: Table, data: ArrowTable) -> ArrowTable:
    """``data`` with the table's schema. Raises ValueError with the name of the first column that differs."""
    if data.schema.names != list(table.names):
        raise ValueError(f"{table.name} must have the columns {list(table.names)}, not {data.schema.names}")
    for column in table.columns:
        found = data.column(column.name)
        if found.type != column.type:
            raise ValueError(f"{table.name}.{column.name} must be {column.type}, not {found.type}")
        if not column.nullable and found.null_count:
            raise ValueError(
                f"{table.name}.{column.name} must not be null, but is null in {found.null_count} rows"
            )
    return data.cast(table.schema)


def check_song(data: ArrowTable, song_id: str, key: str) -> None:
    """Raise ValueError if a row belongs to another song than the file."""
    others = set(data.column("song_id").unique().to_pylist()) - {song_id}
    if others:
        raise ValueError(f"{key} is the file of {song_id} and cannot have rows of {sorted(map(str, others))}")
