"""The stored catalogs, read back, agree with the tables and with each other."""

from collections.abc import Iterator

import polars as pl

from bandscope_dagster.errors import counted
from bandscope_dagster.songs.status import Status
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import read_rows
from bandscope_dagster.storage.tables.schemas import SONG_CATALOG, SONG_ERRORS, Table


def read_song_states(store: ObjectStore) -> pl.DataFrame | None:
    """The columns ``song_id``, ``status`` and ``heard`` (True if it has instruments) of the stored ``song_catalog``.

    None if it cannot be read.
    """
    rows = read_rows(store, SONG_CATALOG, ("song_id", "status", "instruments"))
    heard = pl.col("instruments").list.len() > 0
    return None if rows is None else rows.select("song_id", "status", heard.alias("heard"))


def status_counts(states: pl.DataFrame) -> dict[str, int]:
    """Status → the number of its songs."""
    return dict(states.group_by("status").len().sort("status").iter_rows())


def disagreements(
    store: ObjectStore, table: Table, states: pl.DataFrame | None, songs: int | None = None
) -> Iterator[str]:
    """Sentences about what does not agree in a stored catalog, by the ``states`` from ``read_song_states``.

    ``songs`` is the number of songs with files, from the listing that the catalog was made from; None if unknown.
    """
    own = states if table is SONG_CATALOG else read_rows(store, table, ("song_id",))
    if own is None or states is None:
        yield f"{table.name if own is None else SONG_CATALOG.name} cannot be read"
        return
    if table is SONG_CATALOG:
        if songs is not None and own.height != songs:
            yield f"it has {counted(own.height, 'row')}, and the tables have {counted(songs, 'song')}"
        if twice := own.height - own["song_id"].n_unique():
            yield f"{counted(twice, 'song')} in more than one row"
        return
    having = own.select("song_id").unique()
    if unknown := having.join(states, on="song_id", how="anti").height:
        yield f"{counted(unknown, 'song')} that {SONG_CATALOG.name} does not have"
    bad = pl.col("status").is_in([Status.REJECTED.value, Status.FAILED.value])
    expected = states.filter(bad if table is SONG_ERRORS else pl.col("heard")).select("song_id").unique()
    if missing := expected.join(having, on="song_id", how="anti").height:
        yield f"no row for {counted(missing, 'song')} that must have one by {SONG_CATALOG.name}"
