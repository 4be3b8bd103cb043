"""Recognizes a store that was copied without the times of its files, so that every upload looks like a new song."""

import hashlib
from collections.abc import Collection
from typing import Final

import polars as pl

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.pipeline.uploads import Listing
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_files import SongFiles, list_all_files

COMPARED: Final = (
    3  # uploads whose bytes are compared, the smallest first: names and sizes alone could be chance
)


class StoreCopied(BandscopeError):
    """The uploads are those of known songs under other ids; nothing was started. The message has the ways out."""


def check_new(store: ObjectStore, listing: Listing, known: Collection[str]) -> None:
    """The same for a process that lists uploads again and again: only if most are not ``known`` songs.

    Raises:
        StoreCopied: see ``check_not_copied``.
    """
    if 2 * len(listing.by_song.keys() - set(known)) > len(listing.uploads):
        check_not_copied(list_all_files(store, [SONGS]), listing)


def check_not_copied(files: SongFiles, listing: Listing) -> None:
    """Raise StoreCopied if more than half of the uploads have the name, size and bytes of a song with another id.

    The song's own upload must be gone. ``files`` is a listing with ``songs``. Rows are read only if half of the uploads
    are new.
    """
    stored = set(files.having(SONGS))
    new = [upload for upload in listing.uploads if upload.song_id not in stored]
    gone = sorted(stored.difference(upload.song_id for upload in listing.uploads))
    if not gone or 2 * len(new) <= len(listing.uploads):
        return
    columns = ("song_id", "upload_key", "size_bytes", "song_hash")
    rows = files.of(pl.Series(gone)).read(SONGS, lambda songs: songs.select(columns))
    hashes = {(key, size): digest for _, key, size, digest in rows.iter_rows() if digest}
    alike = [upload for upload in new if (upload.key, upload.size) in hashes and upload.fault is None]
    if 2 * len(alike) <= len(listing.uploads):
        return
    for upload in sorted(alike, key=lambda upload: upload.size)[:COMPARED]:
        digest = hashlib.sha256()
        for chunk in files.store.chunks(upload.key):
            digest.update(chunk)
        if digest.hexdigest() != hashes[upload.key, upload.size]:
            return
    if isinstance(files.store, LocalStore):
        cause = "it was copied without the times of its files, from which the ids are made."
        way = "Copy uploads/ again with its times (`cp -a` or `rsync -a`, from the original)"
    else:
        cause = (
            "the copy has other ETags, from which the ids are made, because it was uploaded in other parts."
        )
        way = "Copy uploads/ again in parts of the original's size"
    raise StoreCopied(
        f"{len(alike)} of {len(listing.uploads)} uploads are songs that this store has under other ids: {cause}"
        f" {way}, and all results are kept. To compute all of them as new songs instead:"
        " `bandscope run --as-new-songs`, also to continue it"
    )
