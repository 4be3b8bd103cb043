"""``bandscope report``: writes pages of songs, and the index of all pages."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import of_song, progress_bar
from bandscope_dagster.errors import BandscopeError, CannotAnalyze, counted
from bandscope_dagster.pages.index_page import write_index
from bandscope_dagster.pages.page_folder import PageFolder
from bandscope_dagster.pages.song_page import write_page
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.find import find_songs
from bandscope_dagster.storage.objects.local_pending import remove_if_empty
from bandscope_dagster.storage.objects.open_store import open_folder
from bandscope_dagster.storage.objects.probe import require_writable
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.tagging.registry import present_from


class ReportError(BandscopeError):
    """The arguments name neither a song nor all songs, or both; the message says what to give."""


def report(
    settings: Settings,
    store: ObjectStore,
    console: Console,
    song: str | None,
    to: Path | None,
    *,
    all_songs: bool,
) -> int:
    """Write the pages of the songs that match ``song``, or of all songs, and the index; return how many failed.

    The pages go into the store, or into the folder ``to``. With ``all_songs``, a page that is up to date is kept.
    Pages of named songs are always written again.

    Raises:
        ReportError: neither ``song`` nor ``all_songs`` is given, or both are.
        NoSuchSong: no song matches.
    """
    if (song is None) is not all_songs:
        raise ReportError("give a song (its id, file name or title, or a glob), or --all for every song")
    pages = PageFolder(store) if to is None else PageFolder(open_folder(to), folder="")
    require_writable(pages.store)
    counts: Counter[str] = Counter()
    with progress_bar(console) as shown:
        songs = _songs(store, song)
        task = shown.add_task("writing pages", total=len(songs))
        for song_id in songs:
            try:
                page = write_page(
                    store,
                    pages,
                    song_id,
                    present_from(settings.present_from, settings.audible_db),
                    keep=all_songs,
                )
                counts["up to date" if page.kept else "written"] += 1
                if not all_songs:
                    shown.console.print(escape(page.uri), highlight=False, soft_wrap=True)
            except (BandscopeError, OSError, ValueError) as error:  # the next song may succeed
                counts["failed"] += 1
                text = escape(of_song(song_id, error))
                shown.console.print(f"[red]{text}[/red]", highlight=False, soft_wrap=True)
            shown.advance(task)
        index = write_index(pages)
    if to is not None:
        remove_if_empty(Path(pages.store.url))
    for outcome, count in counts.items():
        console.print(f"{count} {outcome}", highlight=False)
    console.print(
        f"The index of {counted(index.songs, 'song')}: {escape(index.uri)}", highlight=False, soft_wrap=True
    )
    return counts["failed"]


def write_gone_pages(
    settings: Settings,
    store: ObjectStore,
    console: Console,
    songs: Collection[str],
    recorded: Collection[str],
) -> int:
    """Write the pages of ``songs`` that were there and are gone, and the index; returns how many failed.

    A song had a page if its index lists it, or if it is in ``recorded``.
    """
    pages = PageFolder(store)
    written = failed = 0
    gone = pages.gone(recorded)
    for song_id in gone.songs:
        if song_id not in songs:
            continue
        try:
            write_page(store, pages, song_id, present_from(settings.present_from, settings.audible_db))
            written += 1
        except CannotAnalyze:  # the song itself was deleted
            continue
        except (BandscopeError, OSError, ValueError) as error:
            failed += 1
            text = escape(f"No page: {of_song(song_id, error)}")
            console.print(f"[red]{text}[/red]", highlight=False, soft_wrap=True)
    if written:
        console.print(f"Pages that were gone and are written again: {written}", highlight=False)
    if gone.index:
        console.print("The index of the pages is missing or damaged, and is written again.", highlight=False)
    if written or gone.index:
        write_index(pages)
    return failed


def _songs(store: ObjectStore, pattern: str | None) -> Sequence[str]:
    if pattern is None:
        names = store.fingerprints([SONGS.name])[SONGS.name]
        return sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))
    return find_songs(store, pattern)
