"""Read-only SQL over all tables by name, with polars."""

from typing import Final, cast

import polars as pl

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects import ObjectStore
from bandscope_dagster.storage.schemas import TABLES, Table

READING_STATEMENTS: Final = frozenset({"SELECT", "WITH", "SHOW", "EXPLAIN", "FROM", "VALUES"})


class QueryError(BandscopeError):
    """The query cannot be answered; the message says why."""


def query(store: ObjectStore, sql: str) -> pl.DataFrame:
    """The answer to ``sql``, in which every table of Bandscope stands under its name.

    Only what the query needs is read. A table that holds nothing yet is there, with its columns and no rows.

    Raises:
        QueryError: the statement would write, or polars cannot run it.
    """
    words = sql.replace("(", " ").split()
    if not words or words[0].upper() not in READING_STATEMENTS:
        raise QueryError("bandscope sql only reads: begin the query with SELECT or WITH")
    context = pl.SQLContext(eager=False)
    for table in TABLES.values():
        context.register(table.name, _scan(store, table) if table.name in sql else _empty(table).lazy())
    try:
        return context.execute(sql, eager=True)
    except pl.exceptions.PolarsError as error:
        cause = str(error).partition("\n\nResolved plan")[0]  # the plan is of no use to who wrote the query
        raise QueryError(f"{cause}\nThe tables are: {', '.join(TABLES)}") from None


def _scan(store: ObjectStore, table: Table) -> pl.LazyFrame:
    """The table's files as the store lists them: no glob, which would misread brackets in the store's own path."""
    files = [store.uri(found.key) for found in store.list(table.name) if found.key.endswith(".parquet")]
    empty = _empty(table)
    if not files:
        return empty.lazy()
    return pl.scan_parquet(
        files,
        glob=False,
        schema=empty.schema,
        missing_columns="insert",  # files of before a column was added
        extra_columns="ignore",  # files of a later version
        storage_options=store.polars_options() or None,
    )


def _empty(table: Table) -> pl.DataFrame:
    return cast(pl.DataFrame, pl.from_arrow(table.schema.empty_table()))
