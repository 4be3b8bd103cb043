"""``bandscope export``: selects songs and writes their files, one song after another."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from av.error import FFmpegError
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import of_song, print_error, progress_bar
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.exporting.flat_export import export_flat
from bandscope_dagster.exporting.folders import ExportFolder
from bandscope_dagster.exporting.gain import Gain
from bandscope_dagster.exporting.song import RejectedSong, read_song
from bandscope_dagster.exporting.song_export import Exported, ExportOptions, export_song
from bandscope_dagster.exporting.stem_file import export_stem_file
from bandscope_dagster.songs.find import NoSuchSong, find_all
from bandscope_dagster.songs.query import query
from bandscope_dagster.storage.objects.local_pending import remove_if_empty
from bandscope_dagster.storage.objects.protocol import ObjectStore

ERRORS_OF_ONE_SONG: Final = (BandscopeError, OSError, ValueError, FFmpegError)
"""Errors that do not stop the other songs: no stems, a damaged file, or a folder that cannot be written."""


STORED_16: Final = (
    "These stems are stored with 16 bits, so that files of 24 bits hold no more. To store 24: BANDSCOPE_FLAC_BITS=24"
    " bandscope run --recompute"
)


@dataclass(frozen=True, slots=True)
class Flat:
    """The files of an export into one folder."""

    stems: Sequence[str] = ()  # empty: all, unless ``without`` has one
    without: Sequence[str] = ()  # the mixture minus each of these stems
    stem_file: bool = False  # True: instead, one stem file a song


class NothingSelected(BandscopeError):
    """The arguments select no songs; the message says how to select some."""


def select_songs(
    store: ObjectStore, patterns: Sequence[str], where: str | None
) -> tuple[list[str], list[NoSuchSong]]:
    """The ids of the songs that match one of ``patterns`` and meet the condition ``where``; either may be missing.

    Also an error for each pattern that matches no song, if another one does.

    A pattern is an id, a file name, a title or a glob. ``where`` is an SQL condition on ``song_catalog``.

    Raises:
        NothingSelected: neither is given.
        NoSuchSong: no song is left.
        QueryError: the condition is not valid SQL.
    """
    if not patterns and where is None:
        raise NothingSelected(
            "give songs (ids, file names, titles or globs such as '*') or a condition: --where \"status = 'ok'\""
        )
    found, missed = find_all(store, patterns)
    if missed and not found:
        raise missed[0]
    if where is None:
        return found, missed
    matches = query(store, f"SELECT song_id FROM song_catalog WHERE ({where}\n) ORDER BY song_id")
    ids: list[str] = matches["song_id"].to_list()
    selected = [song for song in found if song in set(ids)] if patterns else ids
    if not selected:
        raise NoSuchSong(f"no song in song_catalog matches {where}; `bandscope sql` shows the catalog")
    return selected, missed


def export(
    store: ObjectStore,
    console: Console,
    songs: Sequence[str],
    to: Path,
    options: ExportOptions,
    flat: Flat | None = None,
    asked_bits: str | None = None,
) -> int:
    """Export the songs (ids) into folders below ``to``, or with ``flat`` into ``to`` itself; return how many failed.

    Complete and current files of an earlier call are kept, except with ``flat``. Rejected songs are named, and count
    as neither exported nor failed.
    """
    counts: Counter[str] = Counter()
    folder = ExportFolder(to)
    bits: set[int] = set()
    taken: dict[str, str] = {}  # names of files in one folder: two songs may have the same artist and title

    def one(song_id: str) -> str | None:
        if flat is not None:
            encoding, target = options.encoding, options.normalise_lufs
            if flat.stem_file:
                done = export_stem_file(store, song_id, to, encoding, target, taken)
            else:
                done = export_flat(
                    store,
                    song_id,
                    to,
                    encoding,
                    flat.stems,
                    flat.without,
                    mixture=options.mixture,
                    normalise_lufs=target,
                    taken=taken,
                )
            counts["exported"] += 1
            return f"{', '.join(path.name for path in done.paths)}{_level(done.gain, options)}"
        exported = export_song(store, song_id, folder, options)
        counts["exported" if exported.written else "up to date"] += 1
        return _line(exported, options) if exported.written else None

    with progress_bar(console) as shown:
        task = shown.add_task("exporting", total=len(songs))
        for song_id in songs:
            try:
                if line := one(song_id):
                    shown.console.print(escape(line), highlight=False, soft_wrap=True)
                if asked_bits == "24":
                    bits.add(read_song(store, song_id).stored_bits)
            except RejectedSong as error:
                counts["rejected"] += 1
                shown.console.print(escape(f"skipped: {error}"), highlight=False, soft_wrap=True)
            except ERRORS_OF_ONE_SONG as error:
                counts["failed"] += 1
                print_error(of_song(song_id, error))
            shown.advance(task)
    remove_if_empty(Path(folder.target.url))
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    if 16 in bits:
        console.print(STORED_16, highlight=False, soft_wrap=True)
    where = f"; the files are in {escape(str(to))}" if counts["exported"] or counts["up to date"] else ""
    console.print(f"{summary}{where}", highlight=False, soft_wrap=True)
    return counts["failed"]


def _line(done: Exported, options: ExportOptions) -> str:
    line = f"{done.folder}: {', '.join(done.written)}"
    if done.kept:
        line += f" ({len(done.kept)} kept)"
    return line + _level(done.gain, options)


def _level(gain: Gain, options: ExportOptions) -> str:
    text = f"; all at {gain.db:+.1f} dB, the highest level without clipping" if gain.limited else ""
    if options.normalise_lufs is not None and gain.loudness_lufs is not None:
        text += f"; the mixture is at {gain.loudness_lufs:.1f} LUFS"
    return text
