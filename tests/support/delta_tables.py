"""Delta tables of catalogs as analysts read them: with polars, pandas and DuckDB."""

import os
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import duckdb
import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.delta_log import delta_key, newest_version
from bandscope_dagster.storage.tables.schemas import Table, catalog_key

Rows = list[tuple[Any, ...]]


def uri_of(store: ObjectStore, table: Table) -> str:
    """The address of the table; on S3 a URL, in which some characters are escaped."""
    scheme, found, path = store.uri(delta_key(table)).partition("s3://")
    return f"s3://{quote(path)}" if found else scheme


def opened(store: ObjectStore, table: Table, version: int | None = None) -> DeltaTable:
    return DeltaTable(uri_of(store, table), version=version, storage_options=store.delta_options())


def polars_options(store: ObjectStore) -> dict[str, str]:
    """The options for polars, whose own numbers of retries are integers."""
    return {name: value for name, value in store.delta_options().items() if "retr" not in name}


def by_polars(store: ObjectStore, table: Table, columns: list[str]) -> Rows:
    found = pl.scan_delta(uri_of(store, table), storage_options=polars_options(store))
    return found.select(columns).sort(columns).collect().rows()


def by_pandas(store: ObjectStore, table: Table, columns: list[str]) -> Rows:
    found = opened(store, table).to_pandas(columns=columns)
    return sorted(found.itertuples(index=False, name=None))


def by_duckdb(store: ObjectStore, table: Table, columns: list[str]) -> Rows:
    with duckdb.connect() as connection:
        connection.register("catalog", opened(store, table).to_pyarrow_dataset())
        names = ", ".join(f'"{column}"' for column in columns)
        return connection.sql(f"SELECT {names} FROM catalog ORDER BY ALL").fetchall()


READERS: Mapping[str, Callable[[ObjectStore, Table, list[str]], Rows]] = {
    "polars": by_polars,
    "pandas": by_pandas,
    "duckdb": by_duckdb,
}


def delta_rows(store: ObjectStore, table: Table, version: int | None = None) -> pl.DataFrame:
    """All rows and columns of a version, sorted."""
    dataset = opened(store, table, version).to_pyarrow_dataset()
    found = pl.DataFrame(dataset.to_table())
    return _sorted(found)


def plain_rows(store: ObjectStore, table: Table) -> pl.DataFrame:
    """All rows and columns of the plain file, sorted in the same way."""
    with store.open(catalog_key(table)) as file:
        return _sorted(pl.DataFrame(pq.read_table(file)))


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    keys = [name for name in ("song_id", "instrument", "source", "table", "family") if name in rows.columns]
    return rows.sort(keys, nulls_last=True, maintain_order=True)


def refresh_ids(store: ObjectStore, table: Table) -> tuple[str, str]:
    """The refresh of the newest version, and that of the plain file."""
    newest = newest_version(store, table)
    assert newest is not None
    with store.open(catalog_key(table)) as file:
        plain = pq.read_metadata(file).metadata[b"bandscope.refresh_id"].decode()
    return newest.refresh_id, plain


def assert_equal_forms(store: ObjectStore, *tables: Table) -> None:
    """The Delta table has the rows and the refresh of the plain file."""
    for table in tables:
        of_delta, of_plain = refresh_ids(store, table)
        assert of_delta == of_plain, table.name
        assert_frame_equal(delta_rows(store, table), plain_rows(store, table))


def newest_log(store: ObjectStore, table: Table) -> str:
    """The key of the newest commit."""
    *_, last = (
        each.key for each in store.list(f"{delta_key(table)}/_delta_log") if each.key.endswith(".json")
    )
    return last


def set_time(path: str, seconds_ago: float) -> None:
    """Make a local file older."""
    found = os.stat(path)
    os.utime(path, (found.st_atime - seconds_ago, found.st_mtime - seconds_ago))
