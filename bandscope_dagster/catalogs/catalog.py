"""The recipe of a catalog, and what has changed since it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from bandscope_dagster.storage.tables.catalog_state import StoredCatalog
from bandscope_dagster.storage.tables.schemas import Table
from bandscope_dagster.storage.tables.song_files import UPLOAD, SongFiles
from bandscope_dagster.storage.tables.sorted_table import Layout


@dataclass(frozen=True, slots=True)
class Catalog:
    """The recipe of a catalog. The rows of a song depend on its files in ``sources`` and on ``settings``."""

    layout: Layout
    sources: tuple[Table, ...]
    settings: Mapping[str, Any]  # JSON, with the code version; a change rebuilds all rows
    # Rows of one song are sorted; the songs are not.
    rows: Callable[[SongFiles], pl.DataFrame]
    marks_uploads: bool = False  # True if the rows also depend on the state of the song's upload

    @property
    def table(self) -> Table:
        """The table that analysts query."""
        return self.layout.table

    @property
    def compared(self) -> tuple[str, ...]:
        """The columns of ``SongFiles.versions`` that a song's rows depend on."""
        return (*(table.name for table in self.sources), *([UPLOAD] if self.marks_uploads else []))

    @property
    def made_with(self) -> str:
        """Settings and columns. If this JSON differs from the stored one, the catalog is rebuilt."""
        columns = [(column.name, str(column.type), column.description) for column in self.table.columns]
        digest = hashlib.sha256(repr((columns, self.layout.order)).encode()).hexdigest()
        return json.dumps({**self.settings, "columns": digest}, sort_keys=True)


@dataclass(frozen=True, slots=True)
class ChangedSongs:
    """The ids of the songs in which two refreshes differ."""

    added: pl.Series
    changed: pl.Series
    removed: pl.Series

    @classmethod
    def between(cls, old: pl.DataFrame, new: pl.DataFrame, compared: Sequence[str]) -> ChangedSongs:
        """Compare the columns ``compared`` of the versions of the songs' files, as in ``SongFiles``."""
        same = new.join(old, on=["song_id", *compared], nulls_equal=True, how="semi")["song_id"].implode()
        before, now = old["song_id"], new["song_id"]
        other, known = now.filter(~now.is_in(same)), before.implode()
        removed = before.filter(~before.is_in(now.implode()))
        return cls(other.filter(~other.is_in(known)), other.filter(other.is_in(known)), removed)


@dataclass(frozen=True, slots=True)
class Changes:
    """The work of one refresh of a catalog."""

    songs: int  # in the store
    to_read: SongFiles  # the new and changed songs
    removed: pl.Series  # the ids of deleted songs
    full: bool  # True if the catalog is rebuilt from all songs

    @property
    def any(self) -> bool:
        """True if there is anything to do."""
        return self.full or len(self.to_read) > 0 or len(self.removed) > 0

    @classmethod
    def since(cls, old: StoredCatalog | None, files: SongFiles, compared: tuple[str, ...]) -> Changes:
        """Compare the columns ``compared`` of the files' versions with those of the ``old`` catalog."""
        if old is None:
            return cls(len(files), files, pl.Series([], dtype=pl.String), full=True)
        songs = ChangedSongs.between(old.versions, files.versions, compared)
        to_read = files.of(pl.concat([songs.added, songs.changed]))
        return cls(len(files), to_read, songs.removed, full=False)
