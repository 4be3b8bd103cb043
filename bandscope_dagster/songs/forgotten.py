"""Forgotten songs: a tombstone keeps each from being a song again, and ``trash/`` keeps its files until it is emptied.

A tombstone is written before the files move, and deleted after they are back. A command that is killed between two
files is completed by the same command: it starts from the tombstone, whose files may be in the trash already.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.storage.objects.keys import TRASH
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_ID

TOMBSTONES: Final = "forgotten"
SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The record of a forgotten song."""

    song_id: str
    filename: str | None
    upload_key: str | None  # None if the upload was gone
    forgotten_at: str  # ISO 8601, UTC
    moved: list[str]  # the keys of its files; each is in ``trash/`` under the same key
    title: str | None = None


class DamagedTombstone(BandscopeError):
    """A tombstone cannot be read; the message has its key."""


def forgotten_songs(store: ObjectStore) -> frozenset[str]:
    """The ids of all forgotten songs, from a listing."""
    names = store.fingerprints([TOMBSTONES])[TOMBSTONES]
    songs = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
    return frozenset(song for song in songs if SONG_ID.fullmatch(song))


def is_forgotten(store: ObjectStore, song_id: str) -> bool:
    """True if the song has a tombstone."""
    return store.head(_key(song_id)) is not None


def read_tombstone(store: ObjectStore, song_id: str) -> Tombstone:
    """The tombstone of a song of ``forgotten_songs``.

    Raises:
        DamagedTombstone: it is not one.
    """
    key = _key(song_id)
    try:
        values: dict[str, Any] = json.loads(store.read(key))
        return Tombstone(**values)
    except (TypeError, ValueError) as error:
        raise DamagedTombstone(f"{store.uri(key)} cannot be read ({error}); delete it") from error


def bury(store: ObjectStore, tombstone: Tombstone, keys: Sequence[str]) -> None:
    """Write the tombstone, and move the song's files with these ``keys`` to the trash.

    Not all of ``tombstone.moved``: if the song was forgotten before, another upload may have the key of its own by now.
    """
    with store.create(_key(tombstone.song_id)) as pending:
        pending.write(json.dumps(asdict(tombstone), indent=1).encode())
    for key in keys:
        with suppress(FileNotFoundError):  # gone since it was listed
            store.move(key, f"{TRASH}/{key}")


def restore(store: ObjectStore, tombstone: Tombstone) -> Sequence[str]:
    """Move the song's files back, then delete the tombstone; returns the keys that are no longer in the trash.

    A file that is at its place again is kept.
    """
    gone: list[str] = []
    for key in tombstone.moved:
        if store.head(key) is not None:
            continue
        if store.head(f"{TRASH}/{key}") is None:
            gone.append(key)
        else:
            store.move(f"{TRASH}/{key}", key)
    store.delete(_key(tombstone.song_id))
    return gone


def _key(song_id: str) -> str:
    return f"{TOMBSTONES}/{song_id}{SUFFIX}"
