"""The tables that songs lack in the store: files that are missing, and files that cannot be used.

The rule, for a store with very many songs: missing files are found by one listing. Files that have changed since the
last refresh of the catalogs are damaged if their footer says so; usually there are none. For all other files, the rows
of ``song_errors`` say it, because the refresh has read them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from bandscope_dagster.songs.status import DAMAGED, SOURCES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import find_state, read_with_refresh
from bandscope_dagster.storage.tables.schemas import SONG_ERRORS, TABLES, Table
from bandscope_dagster.storage.tables.song_files import SongFiles, files_of, footer_faults


@dataclass(frozen=True, slots=True)
class Lacking:
    """The files that some songs lack. Tables are in the order in which they were asked for."""

    missing: Mapping[str, tuple[str, ...]]  # song → tables without a file; only songs that miss any
    damaged: Mapping[str, Mapping[str, str]]  # table → song → the reason why its file cannot be used

    def tables_of(self, song_id: str) -> set[str]:
        """The tables that the song lacks."""
        damaged = {table for table, songs in self.damaged.items() if song_id in songs}
        return damaged.union(self.missing.get(song_id, ()))

    @property
    def songs(self) -> set[str]:
        """The songs that lack anything."""
        return {*self.missing, *(song for songs in self.damaged.values() for song in songs)}


def find_lacking(files: SongFiles, songs: Sequence[str], tables: Iterable[str]) -> Lacking:
    """The files that ``songs`` lack of ``tables``. ``files`` is a listing with all ``SOURCES``."""
    wanted = pl.DataFrame({"song_id": songs}, schema={"song_id": pl.String})
    versions = wanted.join(files.versions, on="song_id", how="left", maintain_order="left")
    names = list(tables)
    if not names or not songs:
        return Lacking({}, {})
    absent = pl.concat_list(pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in names)
    missing = versions.select("song_id", absent.list.drop_nulls().alias("tables"))
    missing = missing.filter(pl.col("tables").list.len() > 0)
    of_these = SongFiles(files.store, versions)
    return Lacking(
        {song: tuple(of_song) for song, of_song in missing.iter_rows()},
        damaged_files(of_these, [TABLES[name] for name in names]),
    )


def damaged_files(files: SongFiles, tables: Sequence[Table]) -> dict[str, dict[str, str]]:
    """Table → song → the reason why its file cannot be used; reads the footers of files that have changed."""
    told, changed = _compared(files, tables, *_damaged_rows(files.store))
    for table in tables:
        told[table.name] |= footer_faults(files.store, table, changed[table.name])
    return {table: songs for table, songs in told.items() if songs}


def damage_told_of(store: ObjectStore, song_ids: Collection[str]) -> dict[str, set[str]]:
    """Song → its tables whose files the last refresh of the catalogs could not read, and that are unchanged since.

    Only songs with such files are in the answer. Usually there are none, and then only the catalog is read.
    """
    damaged, refresh_id = _damaged_rows(store)
    songs = sorted(set(damaged["song_id"]).intersection(song_ids))
    if not songs:
        return {}
    files = SongFiles(store, pl.concat(files_of(store, song, SOURCES).versions for song in songs))
    told, _ = _compared(files, SOURCES, damaged, refresh_id)
    return {song: {table for table, of_table in told.items() if song in of_table} for song in songs}


def _compared(
    files: SongFiles, tables: Sequence[Table], damaged: pl.DataFrame, refresh_id: str
) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """Per table: the unchanged files that are ``damaged``, with the message; and the songs with changed files."""
    before = find_state(files.store, SONG_ERRORS, refresh_id, [table.name for table in tables])
    told: dict[str, dict[str, str]] = {}
    changed: dict[str, list[str]] = {}
    for table in tables:
        name = table.name
        now = files.versions.select("song_id", name).drop_nulls()
        if before is None:
            told[name], changed[name] = {}, now["song_id"].to_list()
            continue
        same = now.join(before.select("song_id", name), on=["song_id", name], how="semi")
        changed[name] = now.join(same, on="song_id", how="anti")["song_id"].to_list()
        named = damaged.filter(pl.col("table") == name).join(same, on="song_id", how="semi")
        told[name] = dict(named.select("song_id", "message").iter_rows())
    return told, changed


def _damaged_rows(store: ObjectStore) -> tuple[pl.DataFrame, str]:
    """The damaged files by ``song_errors``, one row per song and table, and the id of the refresh that read them.

    No rows and an empty id if the catalog is missing or cannot be read.
    """
    stored = read_with_refresh(store, SONG_ERRORS)
    if stored is None:
        return pl.DataFrame(schema={"song_id": pl.String}), ""
    rows, refresh_id = stored
    damaged = rows.filter(pl.col("reason") == DAMAGED)
    if (
        "tables" in rows.columns
    ):  # not in a catalog of version 1: it has a row per table, until the next refresh
        of_tables = damaged.explode("tables", "messages")
        damaged = of_tables.select("song_id", table="tables", message="messages")
    return damaged, refresh_id
