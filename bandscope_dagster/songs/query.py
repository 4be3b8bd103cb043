"""Read-only SQL over all tables by name, with polars."""

from collections.abc import Generator
from contextlib import contextmanager

import polars as pl

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.songs.read_only import READING, writing_word
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.frames import empty_frame, scan_files
from bandscope_dagster.storage.tables.schemas import TABLES, Table


class QueryError(BandscopeError):
    """The query cannot be answered; the message says why."""


def query(store: ObjectStore, sql: str) -> pl.DataFrame:
    """The answer to ``sql``, as a whole in memory; see ``lazy_query``."""
    with polars_errors():
        return lazy_query(store, sql).collect()


def lazy_query(store: ObjectStore, sql: str) -> pl.LazyFrame:
    """The answer to ``sql``, in which every table of Bandscope stands under its name. Nothing is read yet.

    Only what the query needs will be read. A table that holds nothing yet is there, with its columns and no rows.
    What is collected from it raises in the terms of polars, unless that happens within ``polars_errors``.

    Raises:
        QueryError: the statement would write, or polars does not understand it.
    """
    refused = writing_word(sql)
    if refused is not None:
        raise QueryError(
            f"bandscope sql only reads, and does not take {refused}: give one query that begins with "
            f"{', '.join(READING[:-1])} or {READING[-1]}"
        )
    context = pl.SQLContext(eager=False)
    for table in TABLES.values():
        context.register(table.name, _scan(store, table) if table.name in sql else empty_frame(table).lazy())
    with polars_errors():
        return context.execute(sql)


@contextmanager
def polars_errors() -> Generator[None]:
    """Within it, what polars raises becomes a QueryError that names the tables."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        cause = str(error).partition("\n\n")[0]  # the plan is of no use to who wrote the query
        raise QueryError(f"{cause}\nThe tables are: {', '.join(TABLES)}") from None


def _scan(store: ObjectStore, table: Table) -> pl.LazyFrame:
    """The table's files as the store lists them: no glob, which would misread brackets in the store's own path."""
    files = [store.uri(found.key) for found in store.list(table.name) if found.key.endswith(".parquet")]
    return scan_files(table, files, store.polars_options())
