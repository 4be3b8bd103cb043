"""The Delta form of each catalog: a table with all its versions, beside the plain file, made after it by its refresh.

Layout: ``delta/<catalog>/``. A version belongs to one refresh: its commit has the refresh's id. The difference between
two refreshes is that of their states (``storage/tables/catalog_state.py``), so a table that fell behind, because a
refresh was killed, is taken to the newest state by the next refresh.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from bandscope_dagster.catalogs.catalog import Catalog, ChangedSongs
from bandscope_dagster.storage.objects.protocol import ObjectChanged, ObjectStore
from bandscope_dagster.storage.tables.catalog_state import find_state
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.delta_files import FileWriter, missing_files, unreadable_files
from bandscope_dagster.storage.tables.delta_log import (
    DamagedDelta,
    DataFile,
    DeltaVersion,
    can_have_delta,
    commit,
    delta_key,
    has_commit,
    newest_version,
    table_properties,
)
from bandscope_dagster.storage.tables.delta_upkeep import CHECKPOINT_EVERY, set_aside, tidy, upkeep_is_due
from bandscope_dagster.storage.tables.lineage import PREFIX, maker_entries
from bandscope_dagster.storage.tables.sorted_table import Layout

logger = logging.getLogger(__name__)

HISTORY_DAYS: Final = 30


@dataclass(frozen=True, slots=True)
class DeltaBase:
    """The Delta table that a refresh starts from, read before it lists the files."""

    version: DeltaVersion | None  # None if there is none that can be read
    damaged: bool = False  # True if its log cannot be read
    impossible: bool = False  # True if no Delta table can be in this store
    fault: OSError | None = None  # the store did not answer

    @property
    def refresh_id(self) -> str | None:
        """The refresh that the table has."""
        return self.version.refresh_id if self.version else None


@dataclass(frozen=True, slots=True)
class DeltaTarget:
    """The version that a refresh makes."""

    catalog: Catalog
    refresh_id: str
    versions: pl.DataFrame  # of the songs' files, as in ``SongFiles``
    parts: Sequence[pl.LazyFrame]  # all rows
    everything: bool  # True if all rows were made again
    # If the table is at the refresh ``since``, the parts ``new`` are enough: they have all songs that changed after it.
    since: str | None = None
    new: Sequence[pl.LazyFrame] = ()


def delta_base(store: ObjectStore, layout: Layout) -> DeltaBase:
    """The newest version of a catalog's Delta table. A fault is kept: it must not stop the plain file."""
    if not can_have_delta(store):
        logger.warning("no Delta tables in %s: its path has an escape of URLs, such as %%20", store.url)
        return DeltaBase(None, impossible=True)
    try:
        return DeltaBase(newest_version(store, layout.table))
    except DamagedDelta as error:
        logger.warning("the Delta table of %s is damaged (%s)", layout.table.name, error)
        return DeltaBase(None, damaged=True)
    except OSError as error:
        return DeltaBase(None, fault=error)


def is_at(store: ObjectStore, layout: Layout, base: DeltaBase, refresh_id: str) -> bool:
    """True if the table has the rows of this refresh, and all of them can be read. Raises the fault of ``base``."""
    if base.fault is not None:
        raise base.fault
    if base.version is None or base.refresh_id != refresh_id:
        return base.impossible
    return not _has_lost(store, layout, unreadable_files(store, layout, base.version.files))


def follow(
    store: ObjectStore,
    base: DeltaBase,
    target: DeltaTarget,
    known: Mapping[str, pl.DataFrame],
    days: int = HISTORY_DAYS,
) -> None:
    """Take the table from ``base`` to ``target``, in one commit. ``known`` has states that were read already.

    A table whose log cannot be read moves to the trash, and is begun again. All rows are written again, as a new
    version, if the table was made with other columns or settings, or if a missing or damaged file is found. This
    refresh looks if every file is there with its size, and reads those that it must change. A refresh without changes
    reads all files (``is_at``).

    Raises:
        ObjectChanged: another refresh made a version after ``base``.
        OSError: the store does not answer. No file of the failed version stays.
    """
    layout = target.catalog.layout
    if base.fault is not None:
        raise base.fault
    if base.impossible:
        return
    if base.damaged:
        _begin_anew(store, layout)
    version = base.version
    due = version is not None and upkeep_is_due(store, layout.table)
    before = None if version is None else _state(store, version.refresh_id, target, known)
    songs = ChangedSongs.between(
        target.versions.clear() if before is None else before, target.versions, target.catalog.compared
    )
    can_replace = (
        version is not None
        and before is not None
        and not target.everything
        and version.made_with == target.catalog.made_with
        and not _has_lost(store, layout, missing_files(store, layout, version.files))
    )
    writer = FileWriter(store, layout)
    try:
        written = _replaced(writer, target, version, songs) if version is not None and can_replace else None
        if written is None:
            removed: Sequence[DataFile] = version.files if version else ()
            added: Sequence[DataFile] = writer.write_all(target.parts, target.versions["song_id"])
        else:
            added, removed = written
    except BaseException:
        writer.discard()
        raise
    info, properties = _info(target, songs), table_properties(days)
    try:
        number = commit(store, layout.table, version, added, removed, info, properties)
    except ObjectChanged:
        writer.discard()
        raise
    except OSError:
        if not has_commit(store, layout.table, 0 if version is None else version.number + 1):
            writer.discard()
        raise
    if due or (number and number % CHECKPOINT_EVERY == 0):
        keep_tidy(store, layout, days, vacuum=due)


def keep_tidy(store: ObjectStore, layout: Layout, days: int, *, vacuum: bool) -> None:
    """Make a checkpoint; with ``vacuum``, also delete what only versions older than ``days`` days have.

    A fault is only a warning: the table is whole, and the next refresh tries again.
    """
    try:
        tidy(store, layout.table, days, vacuum=vacuum)
    except (OSError, DamagedDelta) as error:
        logger.warning("old versions of %s could not be removed: %s", delta_key(layout.table), error)


def _begin_anew(store: ObjectStore, layout: Layout) -> None:
    try:
        newest_version(store, layout.table)
    except DamagedDelta:
        place = set_aside(store, layout.table)
        logger.warning("the damaged table, with its earlier versions, is now in %s; a new one begins", place)
    else:
        raise ObjectChanged(f"{store.uri(delta_key(layout.table))} was made again by another refresh")


def _state(
    store: ObjectStore, refresh_id: str, target: DeltaTarget, known: Mapping[str, pl.DataFrame]
) -> pl.DataFrame | None:
    """The versions of the files that the refresh had; None if they are not known any more."""
    if refresh_id in known:
        return known[refresh_id]
    return find_state(store, target.catalog.table, refresh_id, target.catalog.compared)


def _replaced(
    writer: FileWriter, target: DeltaTarget, version: DeltaVersion, songs: ChangedSongs
) -> tuple[Sequence[DataFile], Sequence[DataFile]] | None:
    """The new files, and the old files that they replace. None if a file is missing or damaged: write all rows then."""
    changed, gone = pl.concat([songs.added, songs.changed]), pl.concat([songs.changed, songs.removed])
    parts = target.new if version.refresh_id == target.since else target.parts
    try:
        return writer.replace_songs(version.files, parts, changed, gone)
    except (FileNotFoundError, DamagedFile) as error:
        writer.discard()
        name = delta_key(target.catalog.table)
        logger.warning("a file of %s cannot be read (%s); all rows are written again", name, error)
        return None


def _has_lost(store: ObjectStore, layout: Layout, lost: Sequence[str]) -> bool:
    """True if the table has ``lost`` files, which a warning says."""
    if lost:
        name = store.uri(delta_key(layout.table))
        logger.warning("%s lacks %s, or it is damaged; a refresh must write all rows again", name, lost[0])
    return bool(lost)


def _info(target: DeltaTarget, songs: ChangedSongs) -> dict[str, str]:
    """The entries of the commit about its refresh; the first three are also in the footer of the plain file."""
    makers = {name.removeprefix(PREFIX): text for name, text in maker_entries(target.catalog.table).items()}
    counts = {
        "songs": target.versions.height,
        "songs_added": len(songs.added),
        "songs_changed": target.versions.height - len(songs.added)
        if target.everything
        else len(songs.changed),
        "songs_removed": len(songs.removed),
    }
    return {
        "refresh_id": target.refresh_id,
        "made_with": target.catalog.made_with,
        **makers,
        **{name: str(count) for name, count in counts.items()},
    }
