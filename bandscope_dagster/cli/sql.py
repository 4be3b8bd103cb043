"""``bandscope sql``: the answer to a query on the screen, or as CSV, JSON or Parquet, in bounded memory."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast
from uuid import uuid4

import polars as pl

from bandscope_dagster.songs.query import QueryError, lazy_query, polars_errors
from bandscope_dagster.storage.objects.protocol import ObjectStore

Format = Literal["table", "csv", "json", "parquet"]

SHOWN_ROWS: Final = 100  # on the screen; more are for a file
SHOWN_CHARACTERS: Final = 60  # of a text on the screen
AUDIO_GROUP_ROWS: Final = 8  # of a Parquet file with audio, some MB a row: a row group waits in memory
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
) -> None:
    """Answer ``sql`` in the format that is given, or else that of the file ``to``, or else as a table.

    A table goes to ``say``, ``width`` characters wide, and CSV and JSON without a file to standard output. A file
    appears whole or not at all, and takes the place of another one only with ``force``.

    Raises:
        QueryError: the query cannot be answered, or not in this way.
    """
    chosen = answer_format or _format_of(to)
    if to is not None and chosen == "table":
        raise QueryError("a table is for the screen: with --to, give --format csv, json or parquet")
    if to is None and chosen == "parquet":
        raise QueryError("Parquet is no text for the screen: say with --to which file is to hold it")
    if to is not None and to.exists() and not force:
        raise QueryError(f"{to} is already there: give another name, or --force to replace it")
    answer = lazy_query(store, sql)
    with polars_errors():
        if chosen == "table":
            _print_table(answer, say, width)
            return
        _check(answer, chosen)
        if to is None:
            _pipe(answer, chosen)
            return
        with _new_file(to, force=force) as file:
            _write(answer, chosen, file)
    say(f"{to}: {to.stat().st_size / 1e6:.1f} MB")


def _format_of(to: Path | None) -> Format:
    if to is None:
        return "table"
    if to.suffix.lower() not in FILE_FORMATS:
        raise QueryError(f"{to.name} does not say in which format: give --format csv, json or parquet")
    return FILE_FORMATS[to.suffix.lower()]


def _print_table(answer: pl.LazyFrame, say: Callable[[str], object], width: int) -> None:
    """The first rows, and how many there are. What is not shown is counted, and not read."""
    first = answer.head(SHOWN_ROWS + 1).collect()
    more = first.height > SHOWN_ROWS
    rows = cast(int, answer.select(pl.len()).collect().item()) if more else first.height
    with pl.Config(
        tbl_rows=SHOWN_ROWS,
        tbl_cols=-1,
        tbl_width_chars=width,
        fmt_str_lengths=SHOWN_CHARACTERS,
        tbl_hide_dataframe_shape=True,
    ):
        say(str(first.head(SHOWN_ROWS)))
    shown = f", of which the first {SHOWN_ROWS} are shown; --to FILE writes all" if more else ""
    say(f"{rows} row{'' if rows == 1 else 's'}{shown}")


def _check(answer: pl.LazyFrame, chosen: Format) -> None:
    """Raise QueryError where a column is of a kind that the format does not have."""
    for name, kind in answer.collect_schema().items():
        if chosen == "csv" and (kind.is_nested() or kind == pl.Binary):
            raise QueryError(
                f"CSV has no {kind.base_type().__name__.lower()} such as {name}: select other columns, or give "
                f"--format {'parquet' if _has_bytes(kind) else 'json'}"
            )
        if chosen == "json" and _has_bytes(kind):
            raise QueryError(
                f"JSON has no bytes such as {name}: select other columns, or give --format parquet"
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
    """Piece by piece, as polars reads."""
    if chosen == "csv":
        answer.sink_csv(file)
    elif chosen == "parquet":
        with_bytes = any(map(_has_bytes, answer.collect_schema().dtypes()))
        answer.sink_parquet(file, row_group_size=AUDIO_GROUP_ROWS if with_bytes else None)
    else:
        array = _JsonArray(file)
        answer.sink_ndjson(cast(BinaryIO, array))
        array.end()


def _pipe(answer: pl.LazyFrame, chosen: Format) -> None:
    """To standard output, for as long as somebody reads there."""
    pipe = _Pipe(sys.stdout.buffer)
    try:
        _write(answer, chosen, cast(BinaryIO, pipe))
        pipe.flush()
    except OSError:  # polars raises its own, without a number
        if not pipe.broken:
            raise
        # `| head` has enough. Python flushes once more at its end, which would fail again and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Pipe:
    """A pipe that remembers that its reader is gone."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.broken = False

    def write(self, data: bytes) -> int:
        """Pass on."""
        with self._noticing():
            return self._file.write(data)

    def flush(self) -> None:
        """Pass on."""
        with self._noticing():
            self._file.flush()

    def close(self) -> None:
        """Leaves the pipe open, which is not ours."""

    @contextmanager
    def _noticing(self) -> Generator[None]:
        try:
            yield
        except BrokenPipeError:
            self.broken = True
            raise


class _JsonArray:
    """Turns the lines that are written to it, each a JSON value, into one array with an element on each line."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._next = b"[\n"  # stands before what comes

    def write(self, lines: bytes) -> int:
        """Take lines, or a part of one."""
        text = bytes(lines)
        if text:
            ends = text.endswith(b"\n")  # in a JSON value it is escaped, so it is the end of one
            self._file.write(self._next + (text[:-1] if ends else text).replace(b"\n", b",\n"))
            self._next = b",\n" if ends else b""
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Leaves the file open for ``end``."""

    def end(self) -> None:
        """After the last line."""
        self._file.write(b"[]\n" if self._next == b"[\n" else b"\n]\n")
        self._file.flush()


@contextmanager
def _new_file(path: Path, *, force: bool) -> Generator[BinaryIO]:
    """A file that is moved to ``path`` at the end of the block, and removed if the block raises."""
    if not path.parent.is_dir():
        raise QueryError(f"there is no folder {path.parent}: make it first, or name another one")
    unfinished = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with unfinished.open("xb") as file:
            yield file
        if path.exists() and not force:
            raise QueryError(f"{path} was made by somebody else meanwhile: give another name, or --force")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
