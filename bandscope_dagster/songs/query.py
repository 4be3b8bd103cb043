"""Read-only SQL over all tables by name, with polars."""

from collections.abc import Generator
from contextlib import contextmanager

import polars as pl

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.songs.read_only import READING, refused_word
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.frames import empty_frame, scan_files
from bandscope_dagster.storage.tables.schemas import TABLES, Table


class QueryError(BandscopeError):
    """The query cannot be answered; the message says why."""


def query(store: ObjectStore, sql: str) -> pl.DataFrame:
    """The whole answer to ``sql`` in memory; see ``lazy_query``."""
    with polars_errors():
        return lazy_query(store, sql).collect()


def lazy_query(store: ObjectStore, sql: str) -> pl.LazyFrame:
    """The answer to ``sql``, which uses all tables of Bandscope by name. Nothing is read until it is collected.

    A collection reads only what the query needs. A table without files has all its columns and no rows. Collect
    within ``polars_errors``, or errors have the terms of polars.

    Raises:
        QueryError: the statement would write, or polars does not understand it.
    """
    try:
        sql.encode()
    except UnicodeEncodeError:
        raise QueryError("the query is not UTF-8") from None
    refused = refused_word(sql)
    if refused is not None:
        raise QueryError(
            f"bandscope sql only reads the tables of the store, and does not accept {refused}; a query begins with "
            f"{', '.join(READING[:-1])} or {READING[-1]}"
        )
    context = pl.SQLContext(eager=False)
    for table in TABLES.values():
        context.register(table.name, _scan(store, table) if table.name in sql else empty_frame(table).lazy())
    with polars_errors():
        return context.execute(sql)


@contextmanager
def polars_errors() -> Generator[None]:
    """Turn an error of polars into a QueryError that names the tables."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        cause = str(error).partition("\n\n")[0]  # without the query plan, which does not help the user
        raise QueryError(f"{cause}\nThe tables are: {', '.join(TABLES)}") from None


def _scan(store: ObjectStore, table: Table) -> pl.LazyFrame:
    """Scan the table's files as the store lists them. A glob would misread brackets in the store's path."""
    files = [store.uri(found.key) for found in store.list(table.name) if found.key.endswith(".parquet")]
    return scan_files(table, files, store.polars_access())
