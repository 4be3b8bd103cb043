"""Refresh the catalogs: read only the songs whose files changed, and keep all other rows.

Layout: ``<catalog>/<catalog>.parquet``, one sorted zstd file, replaced as a whole; beside it the Delta table of
``catalogs/delta.py``, which gets a new version.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from bandscope_dagster.catalogs.delta import (
    HISTORY_DAYS,
    DeltaBase,
    DeltaTarget,
    delta_base,
    follow,
    is_at,
    keep_tidy,
)
from bandscope_dagster.pipeline.upload_states import with_upload_states
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore
from bandscope_dagster.storage.tables.catalog_state import (
    UNREADABLE,
    StoredCatalog,
    delete_old_states,
    footer_entries,
    is_whole,
    refresh_id_in,
    stored_catalog,
    write_state,
)
from bandscope_dagster.storage.tables.delta_log import DamagedDelta
from bandscope_dagster.storage.tables.schemas import Table, catalog_key
from bandscope_dagster.storage.tables.song_files import UPLOAD, SongFiles, list_song_files
from bandscope_dagster.storage.tables.song_tables import Written
from bandscope_dagster.storage.tables.sorted_table import Layout, SpilledRows, write_sorted

logger = logging.getLogger(__name__)

SONGS_AT_ONCE = 250  # bounds the memory of a build; no value spans several songs
REPORT_EVERY_S = 5.0

ReportProgress = Callable[[str], object]
"""Takes a sentence about the progress of a refresh, for example the ``info`` of a logger."""


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


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of a refresh."""

    file: Written
    changes: Changes
    seconds: float  # for the first catalog, with the time of the listing


class _OldCatalogUnreadable(Exception):
    """The rows of the stored catalog cannot be read, although its footer could."""


def refresh(
    store: ObjectStore,
    catalogs: Sequence[Catalog],
    report_progress: ReportProgress = logger.info,
    history_days: int = HISTORY_DAYS,
) -> Iterator[Refreshed]:
    """Update the catalogs, one after another, for all songs in ``songs`` or ``song_failures``.

    The songs' files are listed once for all catalogs. Without changes, nothing is written. Of several refreshes at the
    same time one makes the next version of the Delta table, and the others start again from there. Then each
    replaces the plain file: readers see the old file or the new one. If the last one to do so is not the one with
    the newest version, or if a refresh is killed between the two, the next refresh makes them equal again. The
    versions of the last ``history_days`` days are kept.
    """
    started = time.monotonic()
    # Read the stored catalogs first. Our listing is then at least as new as theirs.
    stored = [stored_catalog(store, each.table, each.made_with, each.compared) for each in catalogs]
    bases = [delta_base(store, each.layout) for each in catalogs]
    files = list_song_files(store, [table for each in catalogs for table in each.sources])
    files = _with_upload_states(files, catalogs)
    for catalog, old, base in zip(catalogs, stored, bases, strict=True):
        try:
            try:
                file, changes = _apply(store, catalog, files, old, base, report_progress, history_days)
            except _OldCatalogUnreadable as error:
                logger.warning(
                    "%s cannot be read (%s); rebuilding it from all songs", catalog.table.name, error
                )
                file, changes = _apply(store, catalog, files, None, base, report_progress, history_days)
        except ObjectChanged:
            # Another refresh replaced the catalog that this one started from: start again from the new one.
            (again,) = refresh(store, [catalog], report_progress, history_days)
            file, changes = again.file, again.changes
        yield Refreshed(file, changes, time.monotonic() - started)
        started = time.monotonic()


def are_current(store: ObjectStore, catalogs: Sequence[Catalog], files: SongFiles) -> bool:
    """True if a refresh would change nothing. ``files`` is a listing with all sources of the catalogs."""
    return next(outdated_catalogs(store, catalogs, files), None) is None


def outdated_catalogs(
    store: ObjectStore, catalogs: Sequence[Catalog], files: SongFiles
) -> Iterator[tuple[str, str]]:
    """Name and reason for each catalog that a refresh would change. The catalogs are read to their ends."""
    files = _with_upload_states(files, catalogs)
    for catalog in catalogs:
        old = stored_catalog(store, catalog.table, catalog.made_with, catalog.compared)
        if old is None:
            exists = store.head(catalog_key(catalog.table)) is not None
            reason = "damaged, or made with other settings or by another version" if exists else "missing"
        elif Changes.since(old, files, catalog.compared).any:
            reason = "out of date"
        elif not is_whole(store, catalog.table):
            reason = "damaged"
        elif not is_at(store, catalog.layout, delta_base(store, catalog.layout), old.refresh_id):
            reason = "its Delta table is missing, damaged or out of date"
        else:
            continue
        yield catalog.table.name, reason


def _with_upload_states(files: SongFiles, catalogs: Sequence[Catalog]) -> SongFiles:
    """``files`` with the states of their uploads, if any catalog marks them."""
    if not any(catalog.marks_uploads for catalog in catalogs):
        return files
    return with_upload_states(files, list_uploads(files.store))


def _apply(
    store: ObjectStore,
    catalog: Catalog,
    files: SongFiles,
    old: StoredCatalog | None,
    base: DeltaBase,
    report_progress: ReportProgress,
    history_days: int,
) -> tuple[Written, Changes]:
    changes = Changes.since(old, files, catalog.compared)
    if old is not None and not changes.any:
        if not is_whole(store, catalog.table):
            raise _OldCatalogUnreadable("its file is damaged")
        _catch_up(store, catalog, old, base, history_days)
        return old.file, changes
    known = {old.refresh_id: old.versions} if old else {}
    delta_fault: Exception | None = None
    with tempfile.TemporaryDirectory(prefix="bandscope-catalog-") as folder:
        spilled = SpilledRows(catalog.layout, Path(folder))
        _read_songs(catalog, changes.to_read, spilled, report_progress)
        new = spilled.parts()
        parts = [*new]
        if old is not None:
            gone = pl.concat([changes.to_read.song_ids, changes.removed])
            kept = pl.scan_parquet(_copy(store, catalog.table, old, Path(folder)), glob=False)
            parts.append(kept.filter(~pl.col("song_id").is_in(gone.implode())))
        report_progress(f"{catalog.table.name}: writing")
        refresh_id = uuid.uuid4().hex
        write_state(store, catalog.table, refresh_id, files.versions)
        target = _target(catalog, refresh_id, files.versions, parts, everything=changes.full)
        target = replace(target, since=old.refresh_id if old else None, new=new)
        try:
            try:
                follow(store, base, target, known, history_days)
            except ObjectChanged:
                delete_old_states(store, catalog.table, current=(), replaced=[refresh_id])
                raise
            except (OSError, DamagedDelta) as error:
                delta_fault = error  # the plain file needs no Delta table
            file = write_sorted(store, catalog.layout, parts, footer_entries(refresh_id, catalog.made_with))
        except UNREADABLE as error:
            if old is None:
                raise
            raise _OldCatalogUnreadable(str(error)) from error
    if delta_fault is not None:
        raise delta_fault
    replaced = [each for each in (old and old.refresh_id, base.refresh_id) if each]
    delete_old_states(store, catalog.table, current=[refresh_id], replaced=replaced)
    return file, changes


def _catch_up(
    store: ObjectStore, catalog: Catalog, old: StoredCatalog, base: DeltaBase, history_days: int
) -> None:
    """Take the Delta table to the rows of the plain file, if it has others."""
    if is_at(store, catalog.layout, base, old.refresh_id):
        if base.version is not None:
            keep_tidy(store, catalog.layout, base.version.number, history_days, committed=False)
        return
    with tempfile.TemporaryDirectory(prefix="bandscope-catalog-") as folder:
        rows = pl.scan_parquet(_copy(store, catalog.table, old, Path(folder)), glob=False)
        lost = base.refresh_id == old.refresh_id
        target = _target(catalog, old.refresh_id, old.versions, [rows], everything=lost)
        follow(store, base, target, {old.refresh_id: old.versions}, history_days)
    replaced = [base.refresh_id] if base.refresh_id else []
    delete_old_states(store, catalog.table, current=[old.refresh_id], replaced=replaced)


def _target(
    catalog: Catalog,
    refresh_id: str,
    versions: pl.DataFrame,
    parts: Sequence[pl.LazyFrame],
    *,
    everything: bool,
) -> DeltaTarget:
    return DeltaTarget(
        catalog.layout, catalog.made_with, refresh_id, versions, catalog.compared, parts, everything
    )


def _read_songs(
    catalog: Catalog, files: SongFiles, spilled: SpilledRows, report_progress: ReportProgress
) -> None:
    done, reported_at = 0, time.monotonic()
    # An empty batch first: a catalog of a store without songs then has its columns and no rows.
    spilled.add(catalog.rows(files.of(files.song_ids.head(0))))
    for batch in files.batches(SONGS_AT_ONCE):
        spilled.add(catalog.rows(batch))
        done += len(batch)
        if time.monotonic() - reported_at > REPORT_EVERY_S:
            report_progress(f"{catalog.table.name}: {done} of {len(files)} songs read")
            reported_at = time.monotonic()


def _copy(store: ObjectStore, table: Table, old: StoredCatalog, folder: Path) -> Path:
    """Copy the ``old`` catalog to a local file. Raises ObjectChanged if another refresh has replaced it."""
    path = folder / "old.parquet"
    with path.open("wb") as file:
        for chunk in store.chunks(catalog_key(table)):
            file.write(chunk)
    if refresh_id_in(pq.read_metadata(path).metadata) != old.refresh_id:
        raise ObjectChanged(f"{store.uri(catalog_key(table))} was replaced by another refresh")
    return path
