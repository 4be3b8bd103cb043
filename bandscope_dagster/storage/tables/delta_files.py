"""The Parquet files of a catalog's Delta table: each has the rows of some songs, in the catalog's order.

A commit writes again, without the changed songs, the files that had rows of them, and adds the new rows of these songs
as a file. Songs that are written together are sorted by id before they are divided into files. Each commit adds a small
file; when there are many small files, a commit writes their rows as few large ones.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, Final, TypeVar, cast
from uuid import uuid4

import polars as pl
import pyarrow.parquet as pq

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import is_whole, parse
from bandscope_dagster.storage.tables.delta_log import DataFile, delta_key
from bandscope_dagster.storage.tables.lineage import maker_entries
from bandscope_dagster.storage.tables.schemas import ArrowTable
from bandscope_dagster.storage.tables.sorted_table import Layout, repeating

logger = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")

SONGS_AT_ONCE: Final = 10_000  # whose rows are in memory at once
FILES_AT_ONCE: Final = 4  # parallel reads and writes of files
LOOKS_AT_ONCE: Final = 32  # parallel questions if a file is there, which are waiting for the network
SMALL: Final = 4  # a file is small if it has less than a quarter of the rows of a full one
MOST_SMALL: Final = 24  # small files, before they are merged


class FileWriter:
    """Writes the files of one version; if no commit names them, ``discard`` deletes them."""

    def __init__(self, store: ObjectStore, layout: Layout) -> None:
        self._store = store
        self._layout = layout
        self._keys: list[str] = []  # of files that are written, or were begun

    def discard(self) -> None:
        """Delete what was written. What cannot be deleted is left to the next vacuum, with a warning."""
        try:
            _each(self._store.delete, self._keys)
        except OSError as error:
            logger.warning("files that no version has are left in %s: %s", self._folder, error)
        self._keys.clear()

    def write_all(self, parts: Sequence[pl.LazyFrame], songs: pl.Series) -> list[DataFile]:
        """Write the rows of all ``songs`` (ids, sorted) in ``parts`` as new files."""
        written: list[DataFile] = []
        for start in range(0, len(songs), SONGS_AT_ONCE):
            some = songs.slice(start, SONGS_AT_ONCE)
            of_some = pl.col("song_id").is_between(pl.lit(some[0]), pl.lit(some[-1]))
            written += self._write(_collected(parts, of_some))
        return written

    def replace_songs(
        self, files: Sequence[DataFile], parts: Sequence[pl.LazyFrame], changed: pl.Series, gone: pl.Series
    ) -> tuple[list[DataFile], list[DataFile]]:
        """Write the files of the next version; returns the new files, and those of ``files`` that they replace.

        ``changed`` are songs whose rows are in ``parts``; the files lose their rows of ``gone``.

        Raises:
            DamagedFile: a file cannot be read.
            FileNotFoundError: a file is missing.
        """
        touched = _touched(self._store, self._layout, files, gone)
        small = [each for each in files if each not in touched and each.rows * SMALL < self._layout.file_rows]
        merged = small if len(small) >= MOST_SMALL else []
        written = [each for each in _each(partial(self._without, gone=gone), touched) if each is not None]
        rest = [_frame(read(self._store, self._layout, each)) for each in merged]
        ids = changed.sort()
        for start in range(0, max(1, len(ids)), SONGS_AT_ONCE):
            of_some = pl.col("song_id").is_in(ids.slice(start, SONGS_AT_ONCE).implode())
            written += self._write(pl.concat([_collected(parts, of_some), *rest]))
            rest.clear()
        return written, [*touched, *merged]

    def _without(self, file: DataFile, gone: pl.Series) -> DataFile | None:
        """Write the file again without rows of the songs in ``gone``; None if no rows are left."""
        rows = read(self._store, self._layout, file)
        stays = ~_songs(rows).is_in(gone.implode())
        kept = rows.filter(stays.to_arrow())
        return self._write_file(kept) if kept.num_rows else None

    def _write(self, rows: pl.DataFrame) -> list[DataFile]:
        """Write rows in any order as files of about ``file_rows`` rows; all rows of a song are in one file."""
        if rows.is_empty():
            return []
        number = max(1, round(rows.height / self._layout.file_rows))
        each = -(-rows.height // number)
        songs = rows.group_by("song_id").len().sort("song_id")
        place = (pl.col("len").cum_sum() - pl.col("len")) // each
        pieces = rows.join(songs.select("song_id", place.alias("piece")), on="song_id", maintain_order="left")
        parts = pieces.partition_by("piece", include_key=False)

        def write(part: pl.DataFrame) -> DataFile:
            return self._write_file(self._layout.sort(part).to_arrow())

        return _each(write, parts)

    def _write_file(self, rows: ArrowTable) -> DataFile:
        path = f"part-{uuid4().hex}.zstd.parquet"
        key = f"{self._folder}/{path}"
        self._keys.append(key)
        schema = self._layout.table.schema.with_metadata(maker_entries(self._layout.table))
        songs = _songs(rows)
        writer: Any = pq.write_table  # its type hints lack the options per column, which it documents
        with self._store.create(key) as pending:
            writer(
                rows.cast(schema),
                pending.file,
                compression="zstd",
                use_dictionary=repeating(schema),
                row_group_size=self._layout.file_group_rows,
                write_page_checksum=True,
            )
            size = pending.commit()
        return DataFile(path, size, rows.num_rows, cast(str, songs.min()), cast(str, songs.max()))

    @property
    def _folder(self) -> str:
        return delta_key(self._layout.table)


def read(store: ObjectStore, layout: Layout, file: DataFile, columns: list[str] | None = None) -> ArrowTable:
    """The rows of a file."""

    def table(source: BinaryIO) -> ArrowTable:
        return pq.read_table(source, columns=columns, page_checksum_verification=True)

    return parse(store, f"{delta_key(layout.table)}/{file.path}", table)


def missing_files(store: ObjectStore, layout: Layout, files: Collection[DataFile]) -> list[str]:
    """The paths of files that the store does not have, or has with another size."""

    def is_there(file: DataFile) -> bool:
        found = store.head(f"{delta_key(layout.table)}/{file.path}")
        return found is not None and found.size == file.size

    # Not by a listing: the folder also has the files of all earlier versions.
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        return [file.path for file, there in zip(files, pool.map(is_there, files), strict=True) if not there]


def unreadable_files(store: ObjectStore, layout: Layout, files: Collection[DataFile]) -> list[str]:
    """The paths of files that are missing, or that cannot be read to their ends."""

    whole = _each(lambda file: is_whole(store, f"{delta_key(layout.table)}/{file.path}"), files)
    return [file.path for file, readable in zip(files, whole, strict=True) if not readable]


def _touched(
    store: ObjectStore, layout: Layout, files: Sequence[DataFile], gone: pl.Series
) -> list[DataFile]:
    """The files with rows of a song in ``gone``."""
    wanted = gone.sort()

    def has_rows(file: DataFile) -> bool:
        start = wanted.search_sorted(file.first, side="left")
        if start == len(wanted) or wanted[start] > file.last:
            return False
        return _songs(read(store, layout, file, ["song_id"])).is_in(wanted.implode()).any()

    return [file for file, has in zip(files, _each(has_rows, files), strict=True) if has]


def _collected(parts: Sequence[pl.LazyFrame], where: pl.Expr) -> pl.DataFrame:
    return pl.concat(part.filter(where) for part in parts).collect()


def _frame(rows: ArrowTable) -> pl.DataFrame:
    return cast(pl.DataFrame, pl.from_arrow(rows))


def _songs(rows: ArrowTable) -> pl.Series:
    return _frame(rows.select(["song_id"]))["song_id"]


def _each(work: Callable[[A], B], items: Collection[A]) -> list[B]:
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return list(pool.map(work, items))
