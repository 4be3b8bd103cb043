"""Find songs by id, file name or title, or by a glob."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.songs.query import query
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, SONG_ID, SONGS, table_key


class NoSuchSong(BandscopeError):
    """No stored song matches."""


def name_matches(pattern: str, *names: str | None) -> bool:
    """True if one of ``names`` equals ``pattern``, which may contain brackets, or matches it as a glob."""
    return any(name is not None and (name == pattern or fnmatchcase(name, pattern)) for name in names)


def matching(songs: Sequence[str], filenames: Mapping[str, str], pattern: str | None) -> list[str]:
    """The songs whose id or file name equals ``pattern`` or matches it as a glob; all songs if it is None."""
    if pattern is None:
        return list(songs)
    return [song for song in songs if name_matches(pattern, song, filenames.get(song))]


def find_songs(store: ObjectStore, pattern: str) -> list[str]:
    """The ids of the stored songs whose id, file name or title equals ``pattern`` or matches it as a glob.

    Raises:
        NoSuchSong: no song matches.
    """
    if SONG_ID.fullmatch(pattern) and any(
        store.head(table_key(table, pattern)) is not None for table in (SONGS, SONG_FAILURES)
    ):
        return [pattern]  # without reading every other song
    songs = query(store, "SELECT song_id, filename, title FROM songs ORDER BY uploaded_at, song_id")
    found = [row[0] for row in songs.iter_rows() if name_matches(pattern, *row)]
    if not found:
        raise NoSuchSong(f"no song matches {pattern!r}; `bandscope status` lists all songs")
    return found
