"""A sorted table as one Parquet file, merged from its last version and new rows in bounded memory.

Rows are sorted by spilling them to local files, as in any external merge sort. All of them together are then read in
ranges of the first column that they are sorted by, each range is sorted, and the ranges follow each other in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bandscope_dagster.storage.lineage import maker_entries
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.schemas import ArrowTable, Table, catalog_key
from bandscope_dagster.storage.tables import Written

SPILL_BYTES = 64 * 1024 * 1024  # of rows in memory, before they are written to a local file
SPILLED_GROUP_ROWS = 16_384  # small, so that reading a range skips the rest
RANGE_ROWS = 100_000  # read and sorted at once; a single value of the first column may have more


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table lies in its file."""

    table: Table
    order: tuple[str, ...]  # the columns that it is sorted by
    row_group_rows: int  # what a reader fetches at least; statistics are per row group


class SpilledRows:
    """Rows that wait, sorted, in local files below ``folder``."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self._layout = layout
        self._folder = folder
        self._waiting: list[pl.DataFrame] = []
        self._files: list[Path] = []

    def add(self, rows: pl.DataFrame) -> None:
        """Take rows in any order."""
        self._waiting.append(rows.select(self._layout.table.names))
        if sum(waiting.estimated_size() for waiting in self._waiting) > SPILL_BYTES:
            self._spill()

    def scan(self) -> pl.LazyFrame:
        """All rows that were added."""
        self._spill()
        return pl.scan_parquet(self._files, glob=False)

    def _spill(self) -> None:
        if self._waiting:
            path = self._folder / f"{len(self._files)}.parquet"
            rows = pl.concat(self._waiting).sort(self._layout.order, maintain_order=True)
            rows.write_parquet(path, compression="lz4", row_group_size=SPILLED_GROUP_ROWS)
            self._files.append(path)
            self._waiting.clear()


def write_sorted(
    store: ObjectStore,
    layout: Layout,
    sources: Sequence[pl.LazyFrame],
    metadata: Mapping[str, str],
) -> Written:
    """Write all rows of the ``sources``, sorted, in place of the catalog that was there.

    Of rows that are equal in ``layout.order`` the order is that of the sources. ``metadata`` goes to the footer.
    """
    key = catalog_key(layout.table)
    rows = 0
    with store.create(key) as pending:
        schema = layout.table.schema.with_metadata(dict(metadata) | maker_entries(layout.table))
        open_writer: Any = pq.ParquetWriter  # its own hints deny the choice by column, which it documents
        with open_writer(
            pending.file, schema, compression="zstd", use_dictionary=_repeating(schema)
        ) as writer:
            for group in _row_groups(layout, _ranges(layout, sources)):
                writer.write_table(group)
                rows += group.num_rows
        size = pending.commit()
    return Written(key=key, uri=store.uri(key), rows=rows, bytes=size)


def _ranges(layout: Layout, sources: Sequence[pl.LazyFrame]) -> Iterator[ArrowTable]:
    """All rows in order, range by range; the next is read while the last is written."""
    first = pl.col(layout.order[0])
    all_rows = pl.concat(sources)

    def read(low: str, high: str) -> ArrowTable:
        within = all_rows.filter(first.is_between(pl.lit(low), pl.lit(high)))
        rows = within.select(layout.table.names).collect().sort(layout.order, maintain_order=True)
        # polars' own strings and lists are the "large" kinds; the schema's are what every reader knows.
        return rows.to_arrow().cast(layout.table.schema)

    with ThreadPoolExecutor(1) as ahead:
        coming: Future[ArrowTable] | None = None
        for low, high in _bounds(all_rows, layout.order[0]):
            last, coming = coming, ahead.submit(read, low, high)
            if last is not None:
                yield last.result()
        if coming is not None:
            yield coming.result()


def _bounds(rows: pl.LazyFrame, column: str) -> list[tuple[str, str]]:
    """The first and the last value of each range; every value lies in one range."""
    counts = rows.group_by(column).len().collect(engine="streaming").sort(column)
    number = (counts["len"].cum_sum() - counts["len"]) // RANGE_ROWS
    ranges = counts.group_by(number.alias("range"), maintain_order=True).agg(
        pl.col(column).first().alias("low"), pl.col(column).last().alias("high")
    )
    return cast(list[tuple[str, str]], ranges.select("low", "high").rows())


def _row_groups(layout: Layout, tables: Iterator[ArrowTable]) -> Iterator[ArrowTable]:
    """The same rows in tables of ``row_group_rows``; the last may be shorter."""
    rest: ArrowTable = layout.table.schema.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        whole = rest.num_rows - rest.num_rows % layout.row_group_rows
        for start in range(0, whole, layout.row_group_rows):
            yield rest.slice(start, layout.row_group_rows)
        rest = rest.slice(whole)
    if rest.num_rows:
        yield rest


def _repeating(schema: Any) -> list[str]:
    """The paths of the columns whose values repeat: all but the 32-bit floats, which are measurements.

    A dictionary of values that do not repeat is built, found too large and thrown away.
    """

    def leaves(path: str, kind: Any) -> Iterator[tuple[str, Any]]:
        if pa.types.is_struct(kind):
            for child in kind:
                yield from leaves(f"{path}.{child.name}", child.type)
        elif pa.types.is_list(kind):
            yield from leaves(f"{path}.list.element", kind.value_type)
        else:
            yield path, kind

    return [path for entry in schema for path, kind in leaves(entry.name, entry.type) if kind != pa.float32()]
