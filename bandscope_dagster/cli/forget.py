"""``bandscope forget``: removes songs from tables, catalogs, pages and partitions, or brings them back."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import dagster as dg
import typer
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.cli.terminal import of_song, one_line
from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.orchestration.dead_runs import end_dead_runs
from bandscope_dagster.orchestration.deep_check import PAGES
from bandscope_dagster.orchestration.home import only_one
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.partitions import SONGS_NAME, song_states
from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.text import megabytes
from bandscope_dagster.pipeline.uploads import Listing, Upload, list_uploads
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.find import select
from bandscope_dagster.songs.forgotten import (
    TRASH,
    Tombstone,
    bury,
    forgotten_songs,
    read_tombstone,
    restore,
    table_keys,
)
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.probe import require_writable
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_files import list_all_files
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
        ForgetError: no song is named or matches, or there is no one to ask.
        HomeInUse: a ``bandscope run`` uses this home.
    """
    if bool(patterns) is options.gone:
        raise ForgetError("name songs (ids, file names, titles or globs), or give --gone, and not both")
    with only_one(home), dg.DagsterInstance.get() as instance:
        end_dead_runs(instance)
        listing = list_uploads(store)
        partitions = list(instance.get_dynamic_partitions(SONGS_NAME))
        known = _known(store, listing, partitions)
        chosen = sorted(known.keys() - listing.by_song.keys()) if options.gone else _matching(known, patterns)
        if not chosen:
            console.print("No song's upload is gone.", highlight=False)
            return True
        busy = song_states(instance, [song for song in partitions if song in chosen], (*PER_SONG, PAGES))
        for song in sorted(busy.in_progress):
            text = f"{song}: left out, because a run computes it; wait for the run, or terminate it"
            console.print(f"[red]{text}[/red]", highlight=False, soft_wrap=True)
        tombstones = [
            _tombstone(store, song, known[song], listing.by_song.get(song), upload_too=options.upload)
            for song in chosen
            if song not in busy.in_progress
        ]
        if not tombstones:
            return False
        _show(store, console, tombstones, upload=options.upload)
        if not options.yes:
            _ask(len(tombstones))
        require_writable(store)
        failed = 0
        for tombstone in tombstones:
            try:
                bury(store, tombstone)
                if tombstone.song_id in partitions:
                    instance.delete_dynamic_partition(SONGS_NAME, tombstone.song_id)
            except (BandscopeError, OSError, ValueError) as error:  # the next song may succeed
                failed += 1
                text = escape(of_song(tombstone.song_id, error))
                console.print(f"[red]{text}[/red]", highlight=False, soft_wrap=True)
        _refresh(store, settings)
        done = [tombstone.song_id for tombstone in tombstones]
        undo = f"`bandscope forget --undo {done[0]}`" if len(done) == 1 else "`bandscope forget --undo SONG…`"
        console.print(
            f"Forgotten: {counted(len(done) - failed, 'song')}. To bring back: {undo}. To free the space, delete"
            f" {escape(store.uri(TRASH))}.",
            highlight=False,
            soft_wrap=True,
        )
        return not failed and not busy.in_progress


def restore_songs(
    settings: Settings, store: ObjectStore, home: Path, console: Console, patterns: Sequence[str]
) -> bool:
    """Bring forgotten songs back, and print what the trash no longer has; returns True if all succeeded.

    Raises:
        ForgetError: no forgotten song matches.
        HomeInUse: a ``bandscope run`` uses this home.
    """
    tombstones = {song: read_tombstone(store, song) for song in sorted(forgotten_songs(store))}
    if not patterns:
        names = "".join(f"\n  {song}" for song in tombstones) or " none"
        raise ForgetError(f"name the songs to bring back; forgotten are:{names}")
    chosen = _matching({song: (found.filename,) for song, found in tombstones.items()}, patterns)
    failed = 0
    with only_one(home), dg.DagsterInstance.get() as instance:
        require_writable(store)
        for song in chosen:
            try:
                gone = restore(store, tombstones[song])
                if song not in instance.get_dynamic_partitions(SONGS_NAME):
                    instance.add_dynamic_partitions(SONGS_NAME, [song])
            except (BandscopeError, OSError, ValueError) as error:  # the next song may succeed
                failed += 1
                text = escape(of_song(song, error))
                console.print(f"[red]{text}[/red]", highlight=False, soft_wrap=True)
                continue
            lost = f"; no longer in the trash: {', '.join(gone)}" if gone else ""
            console.print(escape(one_line(f"{song} is back{lost}")), highlight=False, soft_wrap=True)
        _refresh(store, settings)
        uploads = list_uploads(store).by_song
        for song in chosen:
            key = tombstones[song].upload_key
            if key is not None and song not in uploads:
                text = f"{song}: its upload {key} is not as it was, so that it would become a new song"
                console.print(escape(one_line(text)), highlight=False, soft_wrap=True)
    return not failed


def _known(store: ObjectStore, listing: Listing, partitions: Sequence[str]) -> Mapping[str, Names]:
    """Every song that is registered or has files, and its names."""
    files = list_all_files(store, SOURCES)
    rows = files.read(SONGS, lambda songs: songs.select("song_id", "filename", "title"))
    known: dict[str, Names] = {song: () for song in [*partitions, *files.song_ids]}
    known |= {upload.song_id: (upload.filename,) for upload in listing.uploads if upload.song_id in known}
    return known | {song: (filename, title) for song, filename, title in rows.iter_rows()}


def _matching(known: Mapping[str, Names], patterns: Sequence[str]) -> list[str]:
    """The songs of which a pattern names the whole id, file name or title. Raises NoSuchSong if one names none."""
    return list(dict.fromkeys(song for each in patterns for song in select(known, each, parts=False)))


def _tombstone(
    store: ObjectStore, song: str, names: Names, upload: Upload | None, *, upload_too: bool
) -> Tombstone:
    keys = [*table_keys(song), PageFolder(store).key(song)]
    moved = [key for key in keys if store.head(key) is not None]
    if upload is not None and upload_too and upload.fault is None:
        moved.append(upload.key)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    filename = upload.filename if upload is not None else next(iter(names), None)
    return Tombstone(song, filename, upload.key if upload is not None else None, now, moved)


def _show(store: ObjectStore, console: Console, tombstones: Sequence[Tombstone], *, upload: bool) -> None:
    """Print the files of each song, and what becomes of its upload."""
    for tombstone in tombstones[:SHOWN]:
        found = [stored for key in tombstone.moved if (stored := store.head(key)) is not None]
        size = megabytes(sum(stored.size for stored in found))
        key = tombstone.upload_key
        if key is None:
            fate = "its upload is gone"
        else:
            fate = f"its upload {key} {'moves too' if key in tombstone.moved else 'stays'}"
        text = f"{tombstone.song_id}: {counted(len(found), 'file')}, {size}; {fate}"
        console.print(escape(one_line(text)), highlight=False, soft_wrap=True)
    if len(tombstones) > SHOWN:
        console.print(f"and {counted(len(tombstones) - SHOWN, 'more song')}", highlight=False)
    what = "Tables, pages and uploads" if upload else "Tables and pages"
    console.print(
        f"{what} move to {escape(store.uri(TRASH))}; rows of catalogs and partitions of Dagster are dropped.",
        highlight=False,
        soft_wrap=True,
    )


def _ask(songs: int) -> None:
    if not sys.stdin.isatty():
        raise ForgetError("no one can answer here; add --yes to forget these songs")
    typer.confirm(f"Forget {counted(songs, 'song')}?", abort=True)


def _refresh(store: ObjectStore, settings: Settings) -> None:
    """Refresh the catalogs, and the index of the pages if there is one."""
    pages = PageFolder(store)
    if store.head(pages.index_key) is not None:
        write_index(pages)
    for _ in refresh(store, all_catalogs(present_from(settings.present_from, settings.audible_db))):
        pass
