"""Refresh the catalogs: read only the songs whose files changed, and keep all other rows.

Layout: ``<catalog>/<catalog>.parquet``, one sorted zstd file, replaced as a whole; beside it the Delta table of
``catalogs/delta.py``, which gets a new version.
"""

from __future__ import annotations

import logging
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from bandscope_dagster.catalogs.catalog import Catalog, Changes
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
    refresh_id_in,
    stored_catalog,
    write_state,
)
from bandscope_dagster.storage.tables.damage import is_whole
from bandscope_dagster.storage.tables.delta_log import DamagedDelta
from bandscope_dagster.storage.tables.delta_upkeep import upkeep_is_due
from bandscope_dagster.storage.tables.schemas import Table, catalog_key
from bandscope_dagster.storage.tables.song_files import SongFiles, list_song_files
from bandscope_dagster.storage.tables.song_tables import Written
from bandscope_dagster.storage.tables.sorted_table import SpilledRows, write_sorted

logger = logging.getLogger(__name__)

SONGS_AT_ONCE = 250  # bounds the memory of a build; no value spans several songs
REPORT_EVERY_S = 5.0

ReportProgress = Callable[[str], object]
"""Takes a sentence about the progress of a refresh, for example the ``info`` of a logger."""


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

    The songs' files are listed once for all catalogs. Without changes, nothing is written. The plain file is replaced
    first: readers see the old file or the new one. Then its rows become the next version of the Delta table. Of several
    refreshes at the same time one makes this version, and the others start again from there. If a refresh is killed
    between the two, the next refresh makes them equal. The versions of the last ``history_days`` days are kept.

    A fault of a Delta table stops no plain file and no other table; the first one is raised after all catalogs.
    """
    faults: list[Exception] = []
    yield from _refresh(store, catalogs, report_progress, history_days, faults)
    if faults:
        raise faults[0]


def _refresh(
    store: ObjectStore,
    catalogs: Sequence[Catalog],
    report_progress: ReportProgress,
    history_days: int,
    faults: list[Exception],
) -> Iterator[Refreshed]:
    """Update the catalogs; the faults of Delta tables are added to ``faults``."""
    started = time.monotonic()
    # Read the stored catalogs first. Our listing is then at least as new as theirs.
    stored = [stored_catalog(store, each.table, each.made_with, each.compared) for each in catalogs]
    bases = [delta_base(store, each.layout) for each in catalogs]
    files = list_song_files(store, [table for each in catalogs for table in each.sources])
    files = _with_upload_states(files, catalogs)
    for catalog, old, base in zip(catalogs, stored, bases, strict=True):

        def apply(
            old: StoredCatalog | None, catalog: Catalog = catalog, base: DeltaBase = base
        ) -> tuple[Written, Changes]:
            return _apply(store, catalog, files, old, base, report_progress, history_days, faults)

        try:
            try:
                file, changes = apply(old)
            except _OldCatalogUnreadable as error:
                logger.warning(
                    "%s cannot be read (%s); rebuilding it from all songs", catalog.table.name, error
                )
                file, changes = apply(None)
        except ObjectChanged:
            # Another refresh changed the catalog that this one started from: start again from the new one.
            (again,) = _refresh(store, [catalog], report_progress, history_days, faults)
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
        elif not is_whole(store, catalog_key(catalog.table)):
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
    faults: list[Exception],
) -> tuple[Written, Changes]:
    changes = Changes.since(old, files, catalog.compared)
    if old is not None and not changes.any:
        if not is_whole(store, catalog_key(catalog.table)):
            raise _OldCatalogUnreadable("its file is damaged")
        with _kept_for_the_end(catalog, faults):
            _catch_up(store, catalog, old, base, history_days)
        return old.file, changes
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
        try:
            file = write_sorted(store, catalog.layout, parts, footer_entries(refresh_id, catalog.made_with))
        except UNREADABLE as error:
            if old is None:
                raise
            raise _OldCatalogUnreadable(str(error)) from error
        since = old.refresh_id if old else None
        target = DeltaTarget(catalog, refresh_id, files.versions, parts, changes.full, since, new)
        with _kept_for_the_end(catalog, faults):
            follow(store, base, target, {old.refresh_id: old.versions} if old else {}, history_days)
            # Only now: until then the Delta table may have the rows of the old file. The state of another refresh,
            # which the table also may have, is left to the age at which it belongs to none.
            delete_old_states(store, catalog.table, current=refresh_id, replaced=since)
    return file, changes


def _catch_up(
    store: ObjectStore, catalog: Catalog, old: StoredCatalog, base: DeltaBase, history_days: int
) -> None:
    """Take the Delta table to the rows of the plain file, if it has others."""
    if is_at(store, catalog.layout, base, old.refresh_id):
        # A table with one version has nothing to delete.
        if base.version is not None and base.version.number and upkeep_is_due(store, catalog.table):
            keep_tidy(store, catalog.layout, history_days, vacuum=True)
        return
    with tempfile.TemporaryDirectory(prefix="bandscope-catalog-") as folder:
        rows = pl.scan_parquet(_copy(store, catalog.table, old, Path(folder)), glob=False)
        lost = base.refresh_id == old.refresh_id
        target = DeltaTarget(catalog, old.refresh_id, old.versions, [rows], everything=lost)
        follow(store, base, target, {old.refresh_id: old.versions}, history_days)


@contextmanager
def _kept_for_the_end(catalog: Catalog, faults: list[Exception]) -> Generator[None]:
    """Add a fault of the Delta table to ``faults``, except that another refresh was faster."""
    try:
        yield
    except ObjectChanged:
        raise
    except (OSError, DamagedDelta) as error:
        logger.warning("the Delta form of %s waits for the next refresh: %s", catalog.table.name, error)
        faults.append(error)


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
