"""Keeping catalogs up to date: only songs whose files changed are read, the other rows are taken as they are.

Layout: ``<catalog>/<catalog>.parquet``, one sorted zstd file, replaced as a whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from bandscope_dagster.catalogs.state import (
    UNREADABLE,
    StoredCatalog,
    footer_entries,
    forget_states,
    refresh_id_in,
    stored_catalog,
    write_state,
)
from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore
from bandscope_dagster.storage.tables.schemas import Table, catalog_key
from bandscope_dagster.storage.tables.song_files import SongFiles, list_song_files
from bandscope_dagster.storage.tables.song_tables import Written
from bandscope_dagster.storage.tables.sorted_table import Layout, SpilledRows, write_sorted

logger = logging.getLogger(__name__)

SONGS_AT_ONCE = 250  # bounds the memory of a build; every figure is of one song
TELL_EVERY_S = 5.0

Tell = Callable[[str], object]
"""Takes a sentence on how far a refresh is, such as the ``info`` of a logger."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """How a catalog is made: its rows of a song depend on the song's files in ``sources`` and on ``settings``."""

    layout: Layout
    sources: tuple[Table, ...]
    settings: Mapping[str, Any]  # JSON, with the version of the code: what has changed makes all rows anew
    rows: Callable[[SongFiles], pl.DataFrame]  # in any order; those of a song in the order of the catalog

    @property
    def table(self) -> Table:
        """What analysts see of it."""
        return self.layout.table

    @property
    def made_with(self) -> str:
        """JSON that differs where catalogs of before must be built anew."""
        columns = [(column.name, str(column.type), column.description) for column in self.table.columns]
        digest = hashlib.sha256(repr((columns, self.layout.order)).encode()).hexdigest()
        return json.dumps({**self.settings, "columns": digest}, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a refresh of a catalog has to do."""

    songs: int  # in the store
    read: SongFiles  # the songs that are new or changed
    removed: pl.Series  # the ids of those that are gone
    full: bool  # whether the catalog is built anew, and so all songs are read

    @classmethod
    def since(cls, old: StoredCatalog | None, files: SongFiles, sources: tuple[Table, ...]) -> Changes:
        """By the versions of the files in ``sources``."""
        if old is None:
            return cls(len(files), files, pl.Series([], dtype=pl.String), full=True)
        names = [table.name for table in sources]
        same = files.versions.join(old.versions, on=["song_id", *names], nulls_equal=True, how="semi")
        changed = files.song_ids.filter(~files.song_ids.is_in(same["song_id"].implode()))
        removed = old.versions["song_id"].filter(~old.versions["song_id"].is_in(files.song_ids.implode()))
        return cls(len(files), files.of(changed), removed, full=False)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh did."""

    file: Written
    changes: Changes
    seconds: float  # those of the listing are the first catalog's


class _OldCatalogUnreadable(Exception):
    """The rows of the catalog that stands cannot be read, though its footer could."""


def refresh(store: ObjectStore, catalogs: Sequence[Catalog], tell: Tell = logger.info) -> Iterator[Refreshed]:
    """Bring the catalogs up to date, one after the other, with the songs that have a file in ``songs``.

    The songs' files are listed once for all of them. Where nothing has changed, nothing is written. Readers see the
    old file or the new one, also when refreshes run at the same time: the last to end stands, and what it did not
    know of is read by the next.
    """
    started = time.monotonic()
    # In this order, so that the listing is never older than the one that the catalog was made from.
    stored = [stored_catalog(store, each.table, each.made_with, each.sources) for each in catalogs]
    files = list_song_files(store, [table for each in catalogs for table in each.sources])
    for catalog, old in zip(catalogs, stored, strict=True):
        try:
            file, changes = _apply(store, catalog, files, old, tell)
        except _OldCatalogUnreadable as error:
            logger.warning("%s cannot be read (%s): all songs are read", catalog.table.name, error)
            file, changes = _apply(store, catalog, files, None, tell)
        except ObjectChanged:
            # Another refresh has replaced the catalog that this one built on: begin again with the new one.
            (again,) = refresh(store, [catalog], tell)
            file, changes = again.file, again.changes
        yield Refreshed(file, changes, time.monotonic() - started)
        started = time.monotonic()


def _apply(
    store: ObjectStore, catalog: Catalog, files: SongFiles, old: StoredCatalog | None, tell: Tell
) -> tuple[Written, Changes]:
    changes = Changes.since(old, files, catalog.sources)
    if old is not None and not len(changes.read) and not len(changes.removed):
        return old.file, changes
    with tempfile.TemporaryDirectory(prefix="bandscope-catalog-") as folder:
        spilled = SpilledRows(catalog.layout, Path(folder))
        _read_songs(catalog, changes.read, spilled, tell)
        parts = spilled.parts()
        if old is not None:
            gone = pl.concat([changes.read.song_ids, changes.removed])
            kept = pl.scan_parquet(_copy(store, catalog.table, old, Path(folder)), glob=False)
            parts.append(kept.filter(~pl.col("song_id").is_in(gone.implode())))
        tell(f"{catalog.table.name}: writing")
        refresh_id = uuid.uuid4().hex
        write_state(store, catalog.table, refresh_id, files.versions)
        try:
            file = write_sorted(store, catalog.layout, parts, footer_entries(refresh_id, catalog.made_with))
        except UNREADABLE as error:
            if old is None:
                raise
            raise _OldCatalogUnreadable(str(error)) from error
    forget_states(store, catalog.table, current=refresh_id, replaced=old.refresh_id if old else None)
    return file, changes


def _read_songs(catalog: Catalog, files: SongFiles, spilled: SpilledRows, tell: Tell) -> None:
    done, told = 0, time.monotonic()
    spilled.add(catalog.rows(files.of(files.song_ids.head(0))))
    for batch in files.batches(SONGS_AT_ONCE):
        spilled.add(catalog.rows(batch))
        done += len(batch)
        if time.monotonic() - told > TELL_EVERY_S:
            tell(f"{catalog.table.name}: {done} of {len(files)} songs read")
            told = time.monotonic()


def _copy(store: ObjectStore, table: Table, old: StoredCatalog, folder: Path) -> Path:
    """The old catalog as a local file, all of it from one version; raises ObjectChanged if that is another one."""
    path = folder / "old.parquet"
    with path.open("wb") as file:
        for chunk in store.chunks(catalog_key(table)):
            file.write(chunk)
    if refresh_id_in(pq.read_metadata(path).metadata) != old.refresh_id:
        raise ObjectChanged(f"{store.uri(catalog_key(table))} was replaced by another refresh")
    return path
