"""Writes and reads the tables with audio, block by block. Each block is a row group."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

import pyarrow.parquet as pq

from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore
from bandscope_dagster.storage.tables.damage import PARSE_ERRORS, unreadable
from bandscope_dagster.storage.tables.lineage import PREFIX, Lineage, maker_entries
from bandscope_dagster.storage.tables.schemas import Table, leaves, table_key
from bandscope_dagster.storage.tables.song_tables import Row, Written, arrow_table, check_song


class AudioTableWriter:
    """Writes a song's blocks one by one; the file becomes visible at ``commit``.

    One block is in memory at a time. As a context manager it aborts at the end of the block of code unless ``commit``
    was called.
    """

    def __init__(self, store: ObjectStore, table: Table, lineage: Lineage) -> None:
        self._store = store
        self._table = table
        self._song_id = lineage.song_id
        self._rows = 0
        self._pending = store.create(table_key(table, lineage.song_id))
        schema = table.schema.with_metadata(lineage.to_metadata() | maker_entries(table))
        columns = [path for path, _ in leaves(schema)]
        audio = {leaf for leaf in columns if leaf.startswith("audio.")}
        numbers = [leaf for leaf in columns if leaf not in audio]
        open_writer: Any = pq.ParquetWriter  # its type hints lack the options per column, which it documents
        self._writer = open_writer(
            self._pending.file,
            schema,
            # FLAC does not compress further, and statistics of its bytes would fill the footer.
            compression={leaf: "NONE" if leaf in audio else "ZSTD" for leaf in columns},
            use_dictionary=numbers,
            write_statistics=numbers,
        )

    def add(self, rows: Sequence[Row]) -> None:
        """Write one block, with all its stems, as one row group."""
        data = arrow_table(self._table, rows)
        check_song(data, self._song_id, self._pending.key)
        self._writer.write_table(data, row_group_size=max(len(rows), 1))
        self._rows += len(rows)

    def commit(self, notes: Mapping[str, str] = {}) -> Written:
        """Finish the file and make it visible.

        ``notes`` (name → text) are entries beside the lineage in the file's metadata.
        """
        self._writer.add_key_value_metadata({PREFIX + name: text for name, text in notes.items()})
        self._writer.close()
        size = self._pending.commit()
        return Written(self._pending.key, self._store.uri(self._pending.key), self._rows, size)

    def abort(self) -> None:
        """Discard the written blocks. Does nothing after ``commit``."""
        with suppress(OSError):  # such as a full disk, which an earlier write has reported
            self._writer.close()
        self._pending.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


def read_blocks(store: ObjectStore, table: Table, song_id: str) -> Iterator[list[dict[str, Any]]]:
    """The song's blocks in order, each a list of rows (one per stem), with one ranged read per block.

    A song with an error has one block with one row. Columns that an older file lacks are null.

    Raises:
        CannotAnalyze: the song has no file.
        DamagedFile: the file, or a block of it, cannot be read.
        OSError: the store did not return the bytes.
    """
    key = table_key(table, song_id)
    try:
        source = store.open(key)
    except FileNotFoundError as error:
        raise CannotAnalyze(
            f"{song_id} has no {table.name}: materialize {table.name} for it first"
        ) from error
    try:
        with source, pq.ParquetFile(source, pre_buffer=True) as file:
            for group in range(file.num_row_groups):
                yield [dict.fromkeys(table.names) | row for row in file.read_row_group(group).to_pylist()]
    except (FileNotFoundError, PermissionError, MemoryError, ObjectChanged):
        raise
    except PARSE_ERRORS as error:
        store.read(
            key
        )  # an OSError may come from the store or from the parser; a fault of the store raises here
        raise unreadable(store, key, error) from error
