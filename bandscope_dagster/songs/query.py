"""Read-only SQL over all tables by name, with polars."""

import logging
from collections.abc import Collection, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.songs.lacking import damaged_files
from bandscope_dagster.songs.read_only import READING, refused_word
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.delta_history import NoSuchVersion, files_at
from bandscope_dagster.storage.tables.frames import empty_frame, scan_files
from bandscope_dagster.storage.tables.lineage import footer_at
from bandscope_dagster.storage.tables.schemas import CATALOG_TABLES, SONGS, TABLES, Table, table_key
from bandscope_dagster.storage.tables.song_files import list_all_files

logger = logging.getLogger(__name__)

DAMAGED_NOW: Final = "If a stored file is damaged, `bandscope doctor --deep` names it."
DAMAGED_BEFORE: Final = (
    "If a file of this version is damaged, the version is lost; `bandscope history` lists the others."
)

SHOWN_DAMAGED: Final = 3
CLOCKS_DIFFER: Final = timedelta(minutes=5)  # between the machines that write and read


class QueryError(BandscopeError):
    """The query cannot be answered; the message says why."""


def query(store: ObjectStore, sql: str) -> pl.DataFrame:
    """The whole answer to ``sql`` in memory; see ``lazy_query``."""
    with polars_errors():
        return lazy_query(store, sql).collect()


def lazy_query(store: ObjectStore, sql: str, as_of: datetime | None = None) -> pl.LazyFrame:
    """The answer to ``sql``, which uses all tables of Bandscope by name. No rows are read until it is collected.

    A collection reads only what the query needs. A table without files has all its columns and no rows. Collect
    within ``polars_errors``, or errors have the terms of polars. With ``as_of`` (UTC, if it has no zone), catalogs are
    read in the version of that time; the other tables have no versions.

    Raises:
        QueryError: the statement would write, or polars does not understand it.
        NoSuchVersion: there is no version of that time, or it is no longer kept, or the time is to come.
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
    tables = tables_at(as_of)
    for table in tables:
        if table.name not in sql:
            rows = empty_frame(table).lazy()
        else:
            rows = _scan(store, table) if as_of is None else _scan_version(store, table, as_of)
        context.register(table.name, rows)
    with polars_errors(tables):
        return context.execute(sql)


def tables_at(as_of: datetime | None) -> Collection[Table]:
    """The tables of a query: all, or those that have versions."""
    return TABLES.values() if as_of is None else CATALOG_TABLES


@contextmanager
def polars_errors(tables: Collection[Table] = TABLES.values()) -> Generator[None]:
    """Turn an error of polars into a QueryError that names the tables that the query may use."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        cause = str(error).partition("\n\n")[0]  # without the query plan, which does not help the user
        now = len(tables) == len(TABLES)
        if isinstance(error, pl.exceptions.ComputeError | pl.exceptions.PanicException):
            cause += "\n" + (DAMAGED_NOW if now else DAMAGED_BEFORE)
        which = "The tables are" if now else "The tables with versions are"
        raise QueryError(f"{cause}\n{which}: {', '.join(table.name for table in tables)}") from None


def _scan_version(store: ObjectStore, table: Table, as_of: datetime) -> pl.LazyFrame:
    when = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    if when > datetime.now(UTC) + CLOCKS_DIFFER:
        raise NoSuchVersion(
            f"{when.isoformat(' ', 'seconds')} is in the future; without a time, a query reads the catalog of now"
        )
    if not when.microsecond:  # a time as `bandscope history` prints it: the whole second
        when += timedelta(microseconds=999_999)
    keys = files_at(store, table, when)
    return scan_files(table, [store.uri(key) for key in keys], store.polars_access())


def _scan(store: ObjectStore, table: Table) -> pl.LazyFrame:
    """Scan the table's files as the store lists them. A glob would misread brackets in the store's path.

    Damaged files of songs are left out, as in the catalogs, and a warning names them.

    Raises:
        QueryError: the table is a catalog, and its file is damaged.
    """
    if table in CATALOG_TABLES:
        keys = [found.key for found in store.list(table.name) if found.key.endswith(".parquet")]
        if not keys and next(store.list(SONGS.name), None) is not None:
            logger.warning("%s does not exist, so it has no rows; `bandscope run` makes it", table.name)
        try:
            for key in keys:
                footer_at(store, key)
        except DamagedFile as error:
            # Without the error's own text, whose advice is for files of songs.
            raise QueryError(
                f"{table.name} is damaged; `bandscope run` makes it again ({error.__cause__})"
            ) from None
    else:
        files = list_all_files(store, [table])
        damaged = damaged_files(files, [table]).get(table.name, {})
        if damaged:
            left_out = "; ".join(f"{song}: {fault}" for song, fault in list(damaged.items())[:SHOWN_DAMAGED])
            number = counted(len(damaged), "damaged file")
            text = "%s: left out: %s; `bandscope doctor --deep` has the fix for each (%s)"
            logger.warning(text, table.name, number, left_out)
        keys = [table_key(table, song) for song in files.having(table) if song not in damaged]
    return scan_files(table, [store.uri(key) for key in keys], store.polars_access())
