"""``bandscope export``: selects songs and writes their files, one song after another."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from av.error import FFmpegError
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import of_song, print_error, progress_bar
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.exporting.folders import ExportFolder
from bandscope_dagster.exporting.song_export import Exported, ExportOptions, export_song
from bandscope_dagster.songs.find import NoSuchSong, find_songs
from bandscope_dagster.songs.query import query
from bandscope_dagster.storage.objects.protocol import ObjectStore

ERRORS_OF_ONE_SONG: Final = (BandscopeError, OSError, ValueError, FFmpegError)
"""Errors that do not stop the other songs: no stems, a damaged file, or a folder that cannot be written."""


class NothingSelected(BandscopeError):
    """The arguments select no songs; the message says how to select some."""


def select_songs(store: ObjectStore, patterns: Sequence[str], where: str | None) -> list[str]:
    """The ids of the songs that match one of ``patterns`` and meet the condition ``where``; either may be missing.

    A pattern is an id, a file name, a title or a glob. ``where`` is an SQL condition on ``song_catalog``.

    Raises:
        NothingSelected: neither is given.
        NoSuchSong: a pattern matches no song, or no song is left.
        QueryError: the condition is not valid SQL.
    """
    if not patterns and where is None:
        raise NothingSelected(
            "give songs (ids, file names, titles or globs such as '*') or a condition: --where \"status = 'ok'\""
        )
    found = list(dict.fromkeys(song for pattern in patterns for song in find_songs(store, pattern)))
    if where is None:
        return found
    matches = query(store, f"SELECT song_id FROM song_catalog WHERE ({where}\n) ORDER BY song_id")
    ids: list[str] = matches["song_id"].to_list()
    selected = [song for song in found if song in set(ids)] if patterns else ids
    if not selected:
        raise NoSuchSong(f"no song in song_catalog matches {where}; `bandscope sql` shows the catalog")
    return selected


def export(
    store: ObjectStore,
    console: Console,
    songs: Sequence[str],
    to: Path,
    options: ExportOptions,
) -> int:
    """Export the songs (ids) into folders below ``to``; return how many failed.

    Complete and current files of an earlier call are kept.
    """
    counts: Counter[str] = Counter()
    folder = ExportFolder(to)
    with progress_bar(console) as shown:
        task = shown.add_task("exporting", total=len(songs))
        for song_id in songs:
            try:
                done = export_song(store, song_id, folder, options)
                counts["exported" if done.written else "up to date"] += 1
                if done.written:
                    shown.console.print(escape(_line(done)), highlight=False, soft_wrap=True)
            except ERRORS_OF_ONE_SONG as error:
                counts["failed"] += 1
                print_error(of_song(song_id, error))
            shown.advance(task)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    console.print(f"{summary}; the files are in {escape(str(to))}", highlight=False, soft_wrap=True)
    return counts["failed"]


def _line(done: Exported) -> str:
    line = f"{done.folder}: {', '.join(done.written)}"
    if done.kept:
        line += f" ({len(done.kept)} kept)"
    if done.gain.limited:
        line += f"; all at {done.gain.db:+.1f} dB, the highest level without clipping"
    return line
