"""Read-only SQL over all tables by name, with polars."""

from typing import Final

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
        if table.name in sql:
            context.register(table.name, _scan(store, table))
    try:
        return context.execute(sql, eager=True)
    except pl.exceptions.PolarsError as error:
        raise QueryError(f"{error}\nThe tables are: {', '.join(TABLES)}") from None


def _scan(store: ObjectStore, table: Table) -> pl.LazyFrame:
    empty = pl.DataFrame(table.schema.empty_table())
    assert isinstance(empty, pl.DataFrame)
    if next(iter(store.list(table.name)), None) is None:
        return empty.lazy()
    return pl.scan_parquet(store.uri(f"{table.name}/*.parquet"), storage_options=store.polars_options())
