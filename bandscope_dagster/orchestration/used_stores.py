"""The stores that a home has used. A store that has vanished, such as a lost mount, is an error and not a new store.

Each command looks before it touches the store. A home remembers a store as soon as the store has an upload.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.pipeline.uploads import UPLOADS, Listing
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_CATALOG, SONGS, catalog_key
from bandscope_dagster.storage.tables.song_files import SongFiles

logger = logging.getLogger(__name__)

RECORD: Final = "bandscope-stores.txt"  # in the home: one URL a line


class StoreLost(BandscopeError):
    """The store had uploads when this home used it last, and now nothing is there. The message says what to do."""


def check_store(store: ObjectStore, home: Path) -> None:
    """Raise StoreLost if the home has used this store, and the store has neither uploads nor songs any more."""
    if store.url not in _used(home) or has_content(store):
        return
    raise StoreLost(
        f"the store {store.url} has vanished: it had uploads when {home} used it last, and now nothing is there."
        f" {_advice(store)}, or correct BANDSCOPE_STORAGE. Nothing was written."
        f" To begin a new store there, remove its line from {home / RECORD}."
    )


def check_not_empty(
    store: ObjectStore, home: Path, listing: Listing, files: SongFiles, songs: Sequence[str]
) -> None:
    """Raise StoreLost if the home has ``songs``, and the store has neither uploads nor files of songs.

    Catches what ``check_store`` cannot: a home that an earlier version wrote remembers no store, and catalogs without
    songs, which such a version wrote into an empty folder, look like content.
    """
    if songs and listing.is_empty and not len(files):
        raise StoreLost(
            f"the store {store.url} has neither uploads nor songs, and {home} knows"
            f" {counted(len(songs), 'song')}. {_advice(store)}, or correct BANDSCOPE_STORAGE or DAGSTER_HOME."
            " Nothing was written. If the store is new: `bandscope ingest` adds songs"
        )


def remember_store(store: ObjectStore, home: Path) -> None:
    """Note in the home that this store was used; call it once the store has an upload.

    A home that cannot be written, as that of a code server in a container, remembers nothing.
    """
    used = _used(home)
    if store.url in used:
        return
    text = "".join(f"{url}\n" for url in [*used, store.url])
    new = home / f"{RECORD}.{os.getpid()}"
    try:
        new.write_text(text, encoding="utf-8", errors="surrogateescape")
        new.replace(home / RECORD)
    except OSError as error:
        logger.warning("%s does not remember the store: %s", home, error.strerror or error)


def _advice(store: ObjectStore) -> str:
    return "Look at the bucket" if store.url.startswith("s3://") else "Mount its disk again"


def _used(home: Path) -> list[str]:
    try:
        return (home / RECORD).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def has_content(store: ObjectStore) -> bool:
    """True if there is any upload or any row of a song. Other files may be those of an empty mount point.

    The catalog is looked at first: to list the first of 100,000 songs in a local folder takes a third of a second.
    """
    if store.head(catalog_key(SONG_CATALOG)) is not None:
        return True
    folders = (SONGS.name, UPLOADS)
    return any(next(store.list(folder, any_name=True), None) is not None for folder in folders)
