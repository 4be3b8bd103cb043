"""Find songs by id, file name or title, by a glob, or by a part of a name."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.songs.query import query
from bandscope_dagster.songs.song_ids import readable_part
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, SONG_ID, SONGS, table_key

SHORTEST_PART: Final = 2  # characters of a name
SUGGESTED: Final = 3


class NoSuchSong(BandscopeError):
    """No stored song matches; the message suggests similar names."""


def select(songs: Mapping[str, Iterable[str | None]], pattern: str, *, parts: bool = True) -> list[str]:
    """The songs of which a name matches ``pattern``; ``songs`` has the names of each, such as its file name and title.

    Case does not matter. A name matches if it equals the pattern, which may contain brackets, or if the pattern is a
    glob for it. If none does, a part of a name is enough, unless ``parts`` is False.

    Raises:
        NoSuchSong: no song matches.
    """
    wanted = _plain(pattern)
    names = {song: [_plain(name) for name in (song, *own) if name] for song, own in songs.items()}
    whole = [
        song
        for song, own in names.items()
        if any(
            name == wanted or PurePosixPath(name).stem == wanted or fnmatchcase(name, wanted) for name in own
        )
    ]
    in_part = [song for song, own in names.items() if any(wanted in name for name in own)]
    if found := whole or (in_part if parts and len(wanted) >= SHORTEST_PART else []):
        return found
    shown = {_plain(name): name for own in songs.values() for name in own if name}
    near = get_close_matches(wanted, shown, SUGGESTED)
    similar = f"; similar names: {', '.join(shown[name] for name in near)}" if near else ""
    raise NoSuchSong(f"no song matches {pattern!r}{similar}; `bandscope status` lists all songs")


def find_songs(store: ObjectStore, pattern: str) -> list[str]:
    """The ids of the stored songs whose id, file name or title matches, as in ``select``, in the order of the uploads.

    Raises:
        NoSuchSong: no song matches.
    """
    found, missed = find_all(store, [pattern])
    if missed:
        raise missed[0]
    return found


def find_all(store: ObjectStore, patterns: Sequence[str]) -> tuple[list[str], list[NoSuchSong]]:
    """The songs that match any of ``patterns``, each once, and an error for each pattern that matches none."""
    found: dict[str, None] = {}
    missed: list[NoSuchSong] = []
    songs: dict[str, list[str | None]] | None = None
    for pattern in patterns:
        if SONG_ID.fullmatch(pattern) and any(
            store.head(table_key(table, pattern)) is not None for table in (SONGS, SONG_FAILURES)
        ):
            found[pattern] = None  # without reading every other song
            continue
        if songs is None:
            rows = query(store, "SELECT song_id, filename, title FROM songs ORDER BY uploaded_at, song_id")
            songs = {song: names for song, *names in rows.iter_rows()}
            for failed in store.list(SONG_FAILURES.name):  # perhaps never read: the id has a part of its name
                song = PurePosixPath(failed.key).stem
                songs.setdefault(song, [readable_part(song)])
        try:
            found |= dict.fromkeys(select(songs, pattern))
        except NoSuchSong as error:
            missed.append(error)
    return list(found), missed


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
