"""The stored catalogs, read back, agree with the tables and with each other."""

from collections.abc import Iterator

import polars as pl

from bandscope_dagster.errors import counted
from bandscope_dagster.songs.status import Status
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import read_rows
from bandscope_dagster.storage.tables.schemas import SONG_CATALOG, SONG_ERRORS, Table


def status_counts(store: ObjectStore) -> dict[str, int]:
    """Status → the number of its songs in the stored ``song_catalog``; empty if it cannot be read."""
    rows = read_rows(store, SONG_CATALOG, ("status",))
    return {} if rows is None else dict(rows.group_by("status").len().sort("status").iter_rows())


def disagreements(store: ObjectStore, table: Table, songs: int | None = None) -> Iterator[str]:
    """Sentences about what does not agree in a stored catalog.

    ``songs`` is the number of songs with files, from the listing that the catalog was made from; None if unknown.
    """
    own = read_rows(store, table, ("song_id",))
    catalog = read_rows(store, SONG_CATALOG, ("song_id", "status", "instruments"))
    if own is None or catalog is None:
        yield f"{table.name if own is None else SONG_CATALOG.name} cannot be read"
        return
    if table is SONG_CATALOG:
        if songs is not None and own.height != songs:
            yield f"it has {counted(own.height, 'row')}, and the tables have {counted(songs, 'song')}"
        if twice := own.height - own["song_id"].n_unique():
            yield f"{counted(twice, 'song')} in more than one row"
        return
    having = set(own["song_id"])
    if unknown := len(having.difference(catalog["song_id"])):
        yield f"{counted(unknown, 'song')} that {SONG_CATALOG.name} does not have"
    bad = pl.col("status").is_in([Status.REJECTED.value, Status.FAILED.value])
    expected = bad if table is SONG_ERRORS else pl.col("instruments").list.len() > 0
    if missing := len(set(catalog.filter(expected)["song_id"]) - having):
        yield f"no row for {counted(missing, 'song')} that must have one by {SONG_CATALOG.name}"
