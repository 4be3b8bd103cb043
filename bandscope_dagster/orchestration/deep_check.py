"""Compares the whole store with Dagster's records: ``bandscope doctor --deep``. Nothing is changed."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import dagster as dg
import polars as pl

from bandscope_dagster.orchestration.home import open_records
from bandscope_dagster.orchestration.partitions import SONGS_NAME, song_states
from bandscope_dagster.orchestration.used_stores import check_not_empty
from bandscope_dagster.pipeline.copied_store import check_not_copied
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.songs.deep_check import damage_inside
from bandscope_dagster.songs.lacking import Lacking, find_lacking
from bandscope_dagster.songs.provenance import trace
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.local_pending import left_over
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.schemas import SONG_TABLES, SONGS, STEM_INSTRUMENT_TAGS
from bandscope_dagster.storage.tables.song_files import SongFiles, list_all_files
from bandscope_dagster.storage.tables.song_tables import read_table

PAGES: Final = "song_pages"
SONGS_AT_ONCE: Final = 8  # on S3, reading is waiting for the network


class Kind(StrEnum):
    """A kind of disagreement; its value says what it is."""

    MISSING = "Missing files"
    DAMAGED = "Damaged files"
    DAMAGED_INSIDE = "Files with damage inside, which only this check finds"
    OUTDATED = "Outdated files: made by another version, or from other inputs"
    NO_UPLOAD = "Missing, damaged or outdated files that cannot be computed again, because the upload is gone"
    ORPHANED = "Songs with files, but without upload and partition"
    UNRECORDED = "Songs that are complete in the store, but not in Dagster's records"
    CATALOGS = "Catalogs that are missing, damaged or out of date"
    PAGES = "Pages that are gone"
    LEFT_OVER = "Files that killed writers left over"


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement."""

    kind: Kind
    subject: str  # a song id, or a file
    text: str  # the tables, and the reason


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a deep check."""

    files: SongFiles  # of all songs with files in the store
    not_processed: int  # uploads without any file
    with_page: set[str]  # songs whose page is in Dagster's records
    findings: Mapping[Kind, Sequence[Finding]]  # only kinds that were found


def check_deeply(store: ObjectStore, on_progress: Callable[[int, int], object]) -> Checked:
    """Read every file of every song, and compare with Dagster's records of the home in ``DAGSTER_HOME``.

    ``on_progress`` is called with the number of songs that are read, and of all. Catalogs and pages are not looked at.

    Raises:
        StoreLost: the store is empty, and the home knows songs.
        StoreCopied: the store was copied without the times of its files.
    """
    with open_records() as instance:
        partitions = list(instance.get_dynamic_partitions(SONGS_NAME))
        files = list_all_files(store, SOURCES)
        listing = list_uploads(store)
        check_not_empty(store, Path(instance.root_directory), listing, files, partitions)
        check_not_copied(files, listing)
        uploads = set(listing.by_song)
        known = [*partitions, *sorted(uploads - set(partitions))]
        stored = set(files.song_ids)
        tables = [table.name for table in SONG_TABLES if files.having(table)]
        with_page = instance.get_materialized_partitions(dg.AssetKey(PAGES))
        recorded = _recorded(instance, partitions, tables)
        findings: defaultdict[Kind, list[Finding]] = defaultdict(list)

        lacking = find_lacking(files, known, tables)

        def found(kind: Kind, subject: str, text: str) -> None:
            of_song = kind in (Kind.MISSING, Kind.DAMAGED, Kind.DAMAGED_INSIDE, Kind.OUTDATED)
            from_stems = lacking.tables_of(subject) == {STEM_INSTRUMENT_TAGS.name}
            if of_song and subject not in uploads and not from_stems:
                kind, text = Kind.NO_UPLOAD, f"{text} ({kind.name.lower().replace('_', ' ')})"
            findings[kind].append(Finding(kind, subject, text))

        for song, missing in lacking.missing.items():
            lost = [table for table in missing if song in stored or song in recorded[table]]
            if lost:
                found(Kind.MISSING, song, ", ".join(lost))
        orphaned = files.versions.filter(~pl.col("song_id").is_in(known))
        for row in orphaned.iter_rows(named=True):
            song = row.pop("song_id")
            found(Kind.ORPHANED, song, ", ".join(table for table, version in row.items() if version))
        for table, songs in lacking.damaged.items():
            for song, fault in songs.items():
                found(Kind.DAMAGED, song, f"{table}: {fault}")
        unfinished = song_states(instance, partitions, tables)
        for song in partitions:
            complete = song in stored and song not in lacking.songs
            if complete and song in unfinished.unfinished - unfinished.in_progress:
                found(Kind.UNRECORDED, song, "")
        _read_all(files, [song for song in known if song in stored], lacking, found, on_progress)
    if isinstance(store, LocalStore):
        for path in left_over(store.root):
            found(Kind.LEFT_OVER, str(path), f"{path.stat().st_size:,} bytes")
    ordered = {kind: findings[kind] for kind in Kind if findings[kind]}
    return Checked(files, len(uploads - stored), with_page, ordered)


def _recorded(
    instance: dg.DagsterInstance, partitions: Sequence[str], tables: Sequence[str]
) -> Mapping[str, set[str]]:
    """Table → the songs that are materialized in Dagster's records."""
    return {
        table: set(partitions) - song_states(instance, partitions, [table]).unfinished for table in tables
    }


def _read_all(
    files: SongFiles,
    songs: Sequence[str],
    lacking: Lacking,
    found: Callable[[Kind, str, str], None],
    on_progress: Callable[[int, int], object],
) -> None:
    """Find damage inside the files of ``songs`` that seem whole, and in complete songs files that do not fit."""
    store = files.store

    def read(song: str) -> list[tuple[Kind, str, str]]:
        whole = [table for table in SONG_TABLES if song not in lacking.damaged.get(table.name, {})]
        duration_s = _duration_of(store, song) if SONGS in whole else None
        problems: list[tuple[Kind, str, str]] = []
        for table in whole:
            fault = damage_inside(store, table, song, duration_s)
            if fault is not None:
                problems.append((Kind.DAMAGED_INSIDE, song, f"{table.name}: {fault}"))
        incomplete = bool(problems) or song in lacking.songs
        for origin in () if incomplete else trace(store, song).tables:
            if origin.outdated:
                problems.append((Kind.OUTDATED, song, f"{origin.table}: {'; '.join(origin.outdated)}"))
        return problems

    with ThreadPoolExecutor(SONGS_AT_ONCE) as pool:
        for number, problems in enumerate(pool.map(read, songs), start=1):
            for problem in problems:
                found(*problem)
            on_progress(number, len(songs))


def _duration_of(store: ObjectStore, song: str) -> float | None:
    """The song's duration; None if its row cannot be read, or has an error."""
    try:
        rows = read_table(store, SONGS, song, ("duration_s", "error"))
    except DamagedFile:
        return None
    row = rows.to_pylist()[0] if rows is not None and rows.num_rows else None
    return row["duration_s"] if row is not None and row["error"] is None else None
