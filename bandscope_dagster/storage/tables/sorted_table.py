"""Merges a sorted table's previous file and new rows into one Parquet file, in bounded memory.

It is an external merge sort: new rows are sorted and spilled to local files. Polars' streaming engine merges them with
the rows that stay, piece by piece, while the previous piece is encoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import maker_entries
from bandscope_dagster.storage.tables.schemas import Table, catalog_key, leaves
from bandscope_dagster.storage.tables.song_tables import Written

SPILL_BYTES = 64 * 1024 * 1024  # of rows in memory before they are spilled to a local file
SPILLED_GROUP_ROWS = 16_384  # the merge holds some row groups of every spilled file in memory


@dataclass(frozen=True, slots=True)
class Layout:
    """The order and the row groups of a table's file."""

    table: Table
    order: tuple[str, ...]  # columns to sort by; nulls are last
    row_group_rows: int  # the smallest unit that readers fetch; statistics are per row group
    file_rows: int = (
        16_384  # of a full file of the Delta table, which is written again if one of its songs changes
    )
    file_group_rows: int = 16_384  # of a row group there

    def sort(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows in this order; rows with equal keys keep their order."""
        return rows.select(self.table.names).sort(self.order, nulls_last=True, maintain_order=True)


class SpilledRows:
    """New rows, sorted in local files below ``folder`` until they are merged."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self._layout = layout
        self._folder = folder
        self._waiting: list[pl.DataFrame] = []
        self._files: list[Path] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows in any order."""
        self._waiting.append(rows.select(self._layout.table.names))
        if sum(waiting.estimated_size() for waiting in self._waiting) > SPILL_BYTES:
            self._spill()

    def parts(self) -> list[pl.LazyFrame]:
        """All added rows, in parts that are sorted."""
        self._spill()
        return [pl.scan_parquet(file, glob=False) for file in self._files]

    def _spill(self) -> None:
        if self._waiting:
            path = self._folder / f"{len(self._files)}.parquet"
            rows = self._layout.sort(pl.concat(self._waiting))
            rows.write_parquet(path, compression="lz4", row_group_size=SPILLED_GROUP_ROWS)
            self._files.append(path)
            self._waiting.clear()


def write_sorted(
    store: ObjectStore, layout: Layout, parts: Sequence[pl.LazyFrame], metadata: Mapping[str, str]
) -> Written:
    """Merge the sorted ``parts`` and write all their rows. Replaces the catalog's file.

    Rows with equal keys keep the order of the parts. ``metadata`` becomes entries of the footer.
    """
    key = catalog_key(layout.table)
    schema = layout.table.schema.with_metadata(dict(metadata) | maker_entries(layout.table))
    merged = _merged(parts, layout.order).select(layout.table.names)
    rows = 0
    with store.create(key) as pending:
        # Polars' own writer has only the "large" strings and lists, and no columns that must not be null.
        open_writer: Any = pq.ParquetWriter  # its type hints lack the options per column, which it documents
        with open_writer(
            pending.file,
            schema,
            compression="zstd",
            use_dictionary=repeating(schema),
            write_page_checksum=True,
        ) as writer:
            for group in merged.collect_batches(chunk_size=layout.row_group_rows, engine="streaming"):
                writer.write_table(group.to_arrow().cast(schema), row_group_size=layout.row_group_rows)
                rows += group.height
        size = pending.commit()
    return Written(key=key, uri=store.uri(key), rows=rows, bytes=size)


def _merged(parts: Sequence[pl.LazyFrame], order: tuple[str, ...]) -> pl.LazyFrame:
    """All rows in order. The parts are merged by halves, so that each row is compared about log2(parts) times."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return _merged(parts[:half], order).merge_sorted(_merged(parts[half:], order), order, maintain_order=True)


def repeating(schema: Any) -> list[str]:
    """The paths of the columns whose values repeat: all except the 32-bit floats, which are measurements.

    For values that do not repeat, the writer would build a dictionary, find it too large and discard it.
    """
    return [path for path, kind in leaves(schema) if kind != pa.float32()]
