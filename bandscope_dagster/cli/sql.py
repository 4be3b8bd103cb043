"""``bandscope sql``: the result of a query on the screen, or as CSV, JSON or Parquet, in bounded memory."""

import os
import re
import sys
from codecs import getincrementaldecoder
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

import polars as pl
import polars.selectors as cs

from bandscope_dagster.cli.new_file import new_file, require_new
from bandscope_dagster.cli.terminal import one_line, printable
from bandscope_dagster.errors import counted
from bandscope_dagster.pages.text import megabytes
from bandscope_dagster.songs.query import QueryError, lazy_query, polars_errors, tables_at
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import TABLES

Format = Literal["table", "csv", "json", "parquet"]

SHOWN_ROWS: Final = 100  # on the screen
SHOWN_CHARACTERS: Final = 60  # of each text on the screen
AUDIO_GROUP_ROWS: Final = 8  # per row group with audio, which is some MB per row and buffered in memory
FORMULA: Final = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"  # also full-width
"""Text that a spreadsheet would run. Titles come from strangers. https://owasp.org/www-community/attacks/CSV_Injection"""
WIDEST: Final = 10_000  # characters of a table before it becomes records
SHORTEST_VALUE: Final = 20  # characters of a value in a record, also in a narrow terminal
DESCRIBE: Final = re.compile(r"desc(?:ribe)?\s+(?:table\s+)?(\w+)\s*;?", re.IGNORECASE)
FILE_FORMATS: Final[dict[str, Format]] = {".csv": "csv", ".json": "json", ".parquet": "parquet"}


def show(
    store: ObjectStore,
    sql: str,
    say: Callable[[str], object],
    width: int,
    answer_format: Format | None = None,
    to: Path | None = None,
    *,
    force: bool = False,
    as_of: datetime | None = None,
) -> None:
    """Run the query ``sql`` and show or write its result; see ``lazy_query`` for ``as_of``.

    The format is ``answer_format``, else that of the file ``to``, else a table. A table goes to ``say``, ``width``
    characters wide. CSV and JSON without a file go to standard output. A file appears whole or not at all, and
    replaces an existing one only with ``force``.

    Raises:
        QueryError: the query fails, or its result does not fit the format.
        CannotWrite: the file cannot be written, or exists and ``force`` is not given.
    """
    chosen = answer_format or _format_of(to)
    if to is not None and chosen == "table":
        raise QueryError("--to cannot write a table; use --format csv, json or parquet")
    if to is None and chosen == "parquet":
        raise QueryError("--format parquet needs a file; use --to FILE")
    if to is not None:
        require_new(to, force=force)
    described = DESCRIBE.fullmatch(sql.strip())
    answer = _columns(described[1]) if described else lazy_query(store, sql, as_of)
    with polars_errors(tables_at(as_of)):
        if chosen == "table":
            _print_table(answer, say, width)
            return
        _check(answer, chosen)
        if to is None:
            _pipe(answer, chosen)
            return
        with new_file(to, force=force) as file:
            _write(answer, chosen, file)
        rows = _rows_in(to, chosen)
    say(f"{to}: {counted(rows, 'row')}, {megabytes(to.stat().st_size)}")


def _format_of(to: Path | None) -> Format:
    if to is None:
        return "table"
    if to.suffix.lower() not in FILE_FORMATS:
        raise QueryError(f"{to.name} has no known extension; use --format csv, json or parquet")
    return FILE_FORMATS[to.suffix.lower()]


def _columns(name: str) -> pl.LazyFrame:
    """The columns of a table, as ``docs/tables.md`` has them."""
    table = TABLES.get(name.lower())
    if table is None:
        raise QueryError(f"there is no table {name}; the tables are: {', '.join(TABLES)}")
    rows = [(each.name, str(each.type), each.unit or "", each.description) for each in table.columns]
    return pl.LazyFrame(rows, ["column", "type", "unit", "description"], orient="row")


def _print_table(answer: pl.LazyFrame, say: Callable[[str], object], width: int) -> None:
    """Print the first rows and the number of all rows. Rows that are not shown are counted without reading them.

    If the columns do not fit beside each other, each row is a record, with a line for each column.
    """
    first = answer.head(SHOWN_ROWS + 1).collect()
    more = first.height > SHOWN_ROWS
    rows = cast(int, answer.select(pl.len()).collect().item()) if more else first.height
    with pl.Config(
        tbl_rows=SHOWN_ROWS,
        tbl_cols=-1,
        tbl_width_chars=WIDEST,
        fmt_str_lengths=SHOWN_CHARACTERS,
        tbl_hide_dataframe_shape=True,
    ):
        text = str(first.head(SHOWN_ROWS))
    say(text if max(map(len, text.splitlines())) <= width else _records(first.head(SHOWN_ROWS), width))
    shown = f"; the first {SHOWN_ROWS} are shown, --to FILE writes all" if more else ""
    say(f"{counted(rows, 'row')}{shown}")


def _records(rows: pl.DataFrame, width: int) -> str:
    names = max(map(len, rows.columns))
    lines: list[str] = []
    rows = rows.with_columns(
        pl.col(pl.Float32).cast(pl.String)
    )  # -16.4; as Python's float it is -16.399999618530273
    for number, row in enumerate(rows.iter_rows(named=True), 1):
        lines.append(f"row {number}")
        for name, value in row.items():
            text = "" if value is None else one_line(value)
            space = max(SHORTEST_VALUE, width - names - 4)
            lines.append(f"  {name:{names}}  {text if len(text) <= space else f'{text[: space - 1]}…'}")
    return "\n".join(lines)


def _check(answer: pl.LazyFrame, chosen: Format) -> None:
    """Raise QueryError if the format cannot store the type of a column."""
    for name, kind in answer.collect_schema().items():
        if chosen == "csv" and (kind.is_nested() or kind == pl.Binary):
            raise QueryError(
                f"CSV cannot store the {kind.base_type().__name__.lower()} column {name}; select other columns, or "
                f"use --format {'parquet' if _has_bytes(kind) else 'json'}"
            )
        if chosen == "json" and _has_bytes(kind):
            raise QueryError(
                f"JSON cannot store the bytes in column {name}; select other columns, or use --format parquet"
            )


def _has_bytes(kind: pl.DataType) -> bool:
    match kind:
        case pl.Binary():
            return True
        case pl.List() | pl.Array():
            return _has_bytes(cast(pl.DataType, kind.inner))
        case pl.Struct():
            return any(_has_bytes(cast(pl.DataType, field.dtype)) for field in kind.fields)
        case _:
            return False


def _write(answer: pl.LazyFrame, chosen: Format, file: BinaryIO) -> None:
    """Write the result to ``file`` piece by piece, while polars reads it."""
    if chosen == "csv":
        is_formula = cs.string().str.contains(FORMULA)
        answer.with_columns(
            pl.when(is_formula).then("'" + cs.string()).otherwise(cs.string()).name.keep()
        ).sink_csv(file)
    elif chosen == "parquet":
        with_bytes = any(map(_has_bytes, answer.collect_schema().dtypes()))
        answer.sink_parquet(file, row_group_size=AUDIO_GROUP_ROWS if with_bytes else None)
    else:
        array = _JsonArray(file)
        answer.sink_ndjson(cast(BinaryIO, array))
        array.end()


def _rows_in(path: Path, chosen: Format) -> int:
    """The number of rows in a file of ``_write``."""
    if chosen == "json":
        with path.open("rb") as file:
            return max(0, sum(1 for _ in file) - 2)  # a line for each row, between those of the brackets
    rows = pl.scan_csv(path, infer_schema=False) if chosen == "csv" else pl.scan_parquet(path)
    return cast(int, rows.select(pl.len()).collect().item())


def _pipe(answer: pl.LazyFrame, chosen: Format) -> None:
    """Write the result to standard output, until the reader closes the pipe."""
    pipe = _Pipe(sys.stdout.buffer)
    try:
        _write(answer, chosen, cast(BinaryIO, pipe))
        pipe.flush()
    except OSError:  # polars raises its own error, without an error number
        if not pipe.broken:
            raise
        # The reader, such as `head`, has exited. At its exit Python flushes again, which would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Pipe:
    """Standard output: a pipe, with a flag that its reader has exited; or a terminal, which gets printable text."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._text = getincrementaldecoder("utf-8")(errors="replace") if file.isatty() else None
        self.broken = False

    def write(self, data: bytes) -> int:
        """Write to the pipe."""
        with self._noticing():
            if self._text is None:
                return self._file.write(data)
            self._file.write(printable(self._text.decode(bytes(data))).encode())
            return len(data)

    def flush(self) -> None:
        """Flush the pipe."""
        with self._noticing():
            self._file.flush()

    def close(self) -> None:
        """Do nothing: standard output stays open."""

    @contextmanager
    def _noticing(self) -> Generator[None]:
        try:
            yield
        except BrokenPipeError:
            self.broken = True
            raise


class _JsonArray:
    """Turns the written lines, each a JSON value, into one array with one element per line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._next = b"[\n"  # to write before the next line

    def write(self, lines: bytes) -> int:
        """Add lines, or a part of a line."""
        text = bytes(lines)
        if text:
            ends = text.endswith(b"\n")  # JSON values escape newlines, so this ends a value
            self._file.write(self._next + (text[:-1] if ends else text).replace(b"\n", b",\n"))
            self._next = b",\n" if ends else b""
        return len(text)

    def flush(self) -> None:
        """Do nothing: no data is buffered."""

    def close(self) -> None:
        """Do nothing: ``end`` needs the file."""

    def end(self) -> None:
        """Close the array after the last line."""
        self._file.write(b"[]\n" if self._next == b"[\n" else b"\n]\n")
        self._file.flush()
