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
from bandscope_dagster.storage.tables.catalog_state import read_made_from, read_rows
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
    told, changed = _compared(files, tables)
    for table in tables:
        told[table.name] |= footer_faults(files.store, table, changed[table.name])
    return {table: songs for table, songs in told.items() if songs}


def damage_told_of(store: ObjectStore, song_ids: Collection[str]) -> dict[str, set[str]]:
    """Song → its tables whose files the last refresh of the catalogs could not read, and that are unchanged since.

    Only songs with such files are in the answer. Usually there are none, and then only the catalog is read.
    """
    rows = read_rows(store, SONG_ERRORS, ("song_id", "reason"))
    damaged = [] if rows is None else rows.filter(pl.col("reason") == DAMAGED)["song_id"]
    songs = sorted(set(damaged).intersection(song_ids))
    if not songs:
        return {}
    files = SongFiles(store, pl.concat(files_of(store, song, SOURCES).versions for song in songs))
    told, _ = _compared(files, SOURCES)
    return {song: {table for table, damaged in told.items() if song in damaged} for song in songs}


def _compared(
    files: SongFiles, tables: Sequence[Table]
) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
    """Per table: the unchanged files that ``song_errors`` names, with its message; and the songs with changed files."""
    stored = _damaged_rows(files.store)
    told: dict[str, dict[str, str]] = {}
    changed: dict[str, list[str]] = {}
    for table in tables:
        name = table.name
        now = files.versions.select("song_id", name).drop_nulls()
        if stored is None:
            told[name], changed[name] = {}, now["song_id"].to_list()
            continue
        rows, before = stored
        same = now.join(before.select("song_id", name), on=["song_id", name], how="semi")
        changed[name] = now.join(same, on="song_id", how="anti")["song_id"].to_list()
        named = rows.filter(pl.col("table") == name).join(same, on="song_id", how="semi")
        told[name] = dict(named.select("song_id", "message").iter_rows())
    return told, changed


def _damaged_rows(store: ObjectStore) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    """The damaged files by ``song_errors``: one row per song and table, and the versions of all files that it knew."""
    columns = ("song_id", "reason", "tables", "messages")
    stored = read_made_from(store, SONG_ERRORS, SOURCES, columns)
    if (
        stored is None
    ):  # perhaps a catalog of version 1, which had a row per table, and is rebuilt at the next refresh
        stored = read_made_from(store, SONG_ERRORS, SOURCES, ("song_id", "reason", "table", "message"))
        if stored is None:
            return None
        rows, versions = stored
        return rows.filter(pl.col("reason") == DAMAGED), versions
    rows, versions = stored
    of_tables = rows.filter(pl.col("reason") == DAMAGED).explode("tables", "messages")
    return of_tables.rename({"tables": "table", "messages": "message"}), versions
