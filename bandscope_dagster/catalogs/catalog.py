"""The recipe of a catalog, and what has changed since it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
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
        same = files.versions.join(old.versions, on=["song_id", *compared], nulls_equal=True, how="semi")
        changed = files.song_ids.filter(~files.song_ids.is_in(same["song_id"].implode()))
        removed = old.versions["song_id"].filter(~old.versions["song_id"].is_in(files.song_ids.implode()))
        return cls(len(files), files.of(changed), removed, full=False)
