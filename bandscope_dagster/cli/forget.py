"""``bandscope forget``: removes songs from tables, catalogs, pages and partitions, or brings them back."""

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import dagster as dg
import polars as pl
import typer
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.cli.terminal import of_song, one_line
from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.deep_check import PAGES
from bandscope_dagster.orchestration.home import only_one, open_records
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.partitions import SONGS_NAME, song_states
from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.page_folder import FOLDER, PageFolder
from bandscope_dagster.pages.text import megabytes
from bandscope_dagster.pipeline.uploads import UPLOADS, Listing, Upload, list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.find import select
from bandscope_dagster.songs.forgotten import (
    DamagedTombstone,
    Tombstone,
    bury,
    forgotten_songs,
    read_tombstone,
    restore,
)
from bandscope_dagster.songs.song_ids import readable_part
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.keys import TRASH
from bandscope_dagster.storage.objects.probe import require_writable
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.delta_log import FOLDER as DELTA
from bandscope_dagster.storage.tables.schemas import SONGS, table_key
from bandscope_dagster.storage.tables.song_files import SongFiles, list_all_files
from bandscope_dagster.tagging.registry import present_from

SHOWN: Final = 20  # songs that are listed before the question
Names = tuple[str | None, ...]  # file name and title of a song


class ForgetError(BandscopeError):
    """Nothing was changed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ForgetOptions:
    """The switches of the command."""

    gone: bool = False  # songs without upload
    upload: bool = False  # also move uploads
    yes: bool = False


@dataclass(frozen=True, slots=True)
class _Plan:
    """The work for one song."""

    tombstone: Tombstone
    upload: Upload | None  # None if it is not in ``uploads/``
    keys: list[str]  # the files that move now; an earlier command may have moved others


def forget_songs(
    settings: Settings,
    store: ObjectStore,
    home: Path,
    console: Console,
    patterns: Sequence[str],
    options: ForgetOptions,
) -> bool:
    """Show what will be removed, ask, and remove it; returns True if no song was left out.

    Raises:
        ForgetError: no song is named or matches, there is no one to ask, or the uploads cannot all be listed.
        HomeInUse: a ``bandscope run`` uses this home.
    """
    if bool(patterns) is options.gone:
        raise ForgetError("name songs (ids, file names, titles or globs), or give --gone, and not both")
    with only_one(home), open_records() as instance:
        end_dead_runs(instance, only_command=True)
        listing = list_uploads(store)
        files = list_all_files(store, SOURCES)
        here = dict.fromkeys((*instance.get_dynamic_partitions(SONGS_NAME), *files.song_ids))
        forgotten = listing.forgotten
        if options.gone:
            chosen = _gone(store, listing, here)
            if not chosen:
                console.print("No song's upload is gone.", highlight=False)
                return True
        elif forgotten.union(here).issuperset(patterns):
            chosen = list(dict.fromkeys(patterns))  # ids: without reading every other song
        else:
            chosen = None
        buried = _tombstones(store, console, forgotten if chosen is None else forgotten.intersection(chosen))
        if chosen is None:
            chosen = _matching(_names(files, listing, here, buried), patterns)
        able = [song for song in chosen if song in buried or song not in forgotten]
        plans = _plans(files, listing, buried, _idle(instance, console, able), upload=options.upload)
        if plans:
            _show(store, console, plans, upload=options.upload)
        if plans and not options.yes:
            _ask(len(plans))
            # A run may have begun meanwhile, or even written files.
            able = _idle(instance, console, [plan.tombstone.song_id for plan in plans])
            files, listing = list_all_files(store, SOURCES), list_uploads(store)
            plans = _plans(files, listing, buried, able, upload=options.upload)
        if not plans:
            return False
        require_writable(store)
        done: list[str] = []
        for plan in plans:
            song = plan.tombstone.song_id
            try:
                bury(store, plan.tombstone, plan.keys)
                instance.delete_dynamic_partition(SONGS_NAME, song)
            except (BandscopeError, OSError, ValueError) as error:  # the next song may succeed
                _print(console, of_song(song, error), "red")
            else:
                done.append(song)
        _refresh(store, settings)
        undo = f"`bandscope forget --undo {done[0]}`" if len(done) == 1 else "`bandscope forget --undo SONG…`"
        space = f"To free the space, delete {store.uri(TRASH)}."
        past = f"Earlier catalogs, in {store.uri(DELTA)}, still have their rows for {settings.history_days} days."
        _print(console, f"Forgotten: {counted(len(done), 'song')}. To bring back: {undo}. {space} {past}")
        return len(done) == len(chosen)


def restore_songs(
    settings: Settings, store: ObjectStore, home: Path, console: Console, patterns: Sequence[str]
) -> bool:
    """Bring forgotten songs back, and print what the trash no longer has; returns True if all succeeded.

    Raises:
        ForgetError: no forgotten song matches.
        HomeInUse: a ``bandscope run`` uses this home.
    """
    forgotten = forgotten_songs(store)
    if not patterns:
        names = "".join(f"\n  {song}" for song in sorted(forgotten)) or " none"
        raise ForgetError(f"name the songs to bring back; forgotten are:{names}")
    ids = forgotten.issuperset(patterns)
    tombstones = _tombstones(store, console, forgotten.intersection(patterns) if ids else forgotten)
    known: dict[str, Names] = dict.fromkeys(sorted(forgotten), ())
    known |= {song: (found.filename, found.title) for song, found in tombstones.items()}
    chosen = _matching(known, patterns)
    failed = len(chosen)
    with only_one(home), open_records() as instance:
        require_writable(store)
        for song in [song for song in chosen if song in tombstones]:
            try:
                gone = restore(store, tombstones[song])
                instance.add_dynamic_partitions(SONGS_NAME, [song])  # does nothing if it is there
            except (BandscopeError, OSError, ValueError) as error:  # the next song may succeed
                _print(console, of_song(song, error), "red")
                continue
            failed -= 1
            lost = f"; no longer in the trash: {', '.join(gone)}" if gone else ""
            _print(console, f"{song} is back{lost}")
        _refresh(store, settings)
        uploads = list_uploads(store).by_song
        for song in tombstones.keys() & chosen:
            key = tombstones[song].upload_key
            if key is not None and song not in uploads:
                _print(console, f"{song}: its upload {key} is not as it was: it would become a new song")
    return not failed


def _gone(store: ObjectStore, listing: Listing, songs: Collection[str]) -> list[str]:
    """Those of ``songs`` whose upload is gone. Raises ForgetError if the listing may lack uploads that are there."""
    listed = {upload.song_id for upload in (*listing.uploads, *listing.hidden)}
    gone = sorted(set(songs) - listed)
    uploads = store.uri(UPLOADS)
    if gone and listing.left_out:
        raise ForgetError(
            f"--gone needs all uploads, and the listing of {uploads} leaves out {len(listing.left_out)}, such as"
            f" {one_line(listing.left_out[0])}; fix or remove them, or name the songs to forget"
        )
    if gone and len(gone) == len(songs):
        raise ForgetError(
            f"--gone: {uploads} has not one upload of the stored songs, as if a disk were missing or all times had"
            " changed; if they are gone for good, name the songs to forget ('*' for all)"
        )
    return gone


def _names(
    files: SongFiles, listing: Listing, here: Collection[str], buried: Mapping[str, Tombstone]
) -> Mapping[str, Names]:
    """Every song that is registered, has files or is forgotten, and its names."""
    rows = files.read(SONGS, lambda songs: songs.select("song_id", "filename", "title"))
    known: dict[str, Names] = {song: (readable_part(song),) for song in here}  # perhaps without a row
    known |= {song: (tombstone.filename, tombstone.title) for song, tombstone in buried.items()}
    known |= {upload.song_id: (upload.filename,) for upload in listing.uploads if upload.song_id in known}
    return known | {song: (filename, title) for song, filename, title in rows.iter_rows()}


def _matching(known: Mapping[str, Names], patterns: Sequence[str]) -> list[str]:
    """The songs of which a pattern names the whole id, file name or title. Raises NoSuchSong if one names none."""
    return list(dict.fromkeys(song for each in patterns for song in select(known, each, parts=False)))


def _tombstones(store: ObjectStore, console: Console, songs: Collection[str]) -> dict[str, Tombstone]:
    """The tombstones of forgotten songs. One that cannot be read is printed and left out."""
    found: dict[str, Tombstone] = {}
    for song in sorted(songs):
        try:
            found[song] = read_tombstone(store, song)
        except (DamagedTombstone, FileNotFoundError) as error:
            _print(console, of_song(song, error), "red")
    return found


def _idle(instance: dg.DagsterInstance, console: Console, songs: Sequence[str]) -> list[str]:
    """The songs that no run computes; the others are printed."""
    registered = set(instance.get_dynamic_partitions(SONGS_NAME)).intersection(songs)
    busy = song_states(instance, sorted(registered), (*PER_SONG, PAGES)).in_progress
    for song in sorted(busy):
        text = f"{song}: left out, because a run computes it; wait for the run, or terminate it"
        _print(console, text, "red")
    return [song for song in songs if song not in busy]


def _plans(
    files: SongFiles, listing: Listing, buried: Mapping[str, Tombstone], songs: Sequence[str], *, upload: bool
) -> list[_Plan]:
    """The files of each song, from listings, and its new tombstone, which keeps what an earlier one has."""
    files = files.of(pl.Series(songs, dtype=pl.String))
    tables = {row["song_id"]: row for row in files.versions.iter_rows(named=True)}
    pages = files.store.fingerprints([FOLDER])[FOLDER].keys()
    rows = files.read(SONGS, lambda rows: rows.select("song_id", "filename", "title"))
    names = {song: own for song, *own in rows.iter_rows()}
    uploads = {each.song_id: each for each in (*listing.uploads, *listing.hidden)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    plans: list[_Plan] = []
    for song in songs:
        row = tables.get(song, {})
        keys = [table_key(table, song) for table in SOURCES if row.get(table.name) is not None]
        page = PageFolder(files.store).key(song)
        if page.removeprefix(f"{FOLDER}/") in pages:
            keys.append(page)
        found = uploads.get(song)
        if found is not None and upload and found.fault is None:
            keys.append(found.key)
        filename, title = names.get(song, (None, None))
        name, key = (filename, None) if found is None else (found.filename, found.key)
        old = buried.get(song, Tombstone(song, name, key, now, [], title))
        moved = list(dict.fromkeys([*old.moved, *keys]))
        plans.append(_Plan(replace(old, moved=moved), found, keys))
    return plans


def _show(store: ObjectStore, console: Console, plans: Sequence[_Plan], *, upload: bool) -> None:
    """Print the files of each song, and what becomes of its upload."""
    for plan in plans[:SHOWN]:
        found = [stored for key in plan.keys if (stored := store.head(key)) is not None]
        size = megabytes(sum(stored.size for stored in found))
        if plan.upload is not None:
            fate = f"{plan.upload.key} {'moves too' if plan.upload.key in plan.keys else 'stays'}"
        else:
            fate = "is in the trash" if plan.tombstone.upload_key in plan.tombstone.moved else "is gone"
        moved = len(plan.tombstone.moved) - len(plan.keys)
        before = f"; forgotten before, with {counted(moved, 'other file')}" if moved else ""
        text = f"{plan.tombstone.song_id}: {counted(len(found), 'file')}, {size}; its upload {fate}{before}"
        _print(console, text)
    if len(plans) > SHOWN:
        _print(console, f"and {counted(len(plans) - SHOWN, 'more song')}")
    what = "Tables, pages and uploads" if upload else "Tables and pages"
    _print(console, f"{what} move to {store.uri(TRASH)}; rows of catalogs and partitions are dropped.")


def _print(console: Console, text: str, style: str | None = None) -> None:
    console.print(escape(one_line(text)), style=style, highlight=False, soft_wrap=True)


def _ask(songs: int) -> None:
    if not sys.stdin.isatty():
        raise ForgetError("no one can answer here; add --yes to forget these songs")
    typer.confirm(f"Forget {counted(songs, 'song')}?", abort=True)


def _refresh(store: ObjectStore, settings: Settings) -> None:
    """Refresh the catalogs, and the index of the pages if there is one."""
    pages = PageFolder(store)
    if store.head(pages.index_key) is not None:
        write_index(pages)
    catalogs = all_catalogs(present_from(settings.present_from, settings.audible_db))
    list(refresh(store, catalogs, history_days=settings.history_days))
