"""The state of each stored song's upload: it is there, gone, or replaced by another file, which is a new song."""

from collections.abc import Collection
from dataclasses import replace
from enum import StrEnum

import polars as pl

from bandscope_dagster.pipeline.uploads import Listing, is_replaced
from bandscope_dagster.storage.objects.keys import fault_of_key
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import read_rows
from bandscope_dagster.storage.tables.schemas import SONG_CATALOG, SONGS
from bandscope_dagster.storage.tables.song_files import UPLOAD, SongFiles


class UploadState(StrEnum):
    """The column ``upload`` of ``song_catalog``."""

    PRESENT = "present"
    GONE = "gone"
    REPLACED = "replaced"  # a file with other content or another time has its key


def with_upload_states(files: SongFiles, listing: Listing) -> SongFiles:
    """``files`` with the column ``upload``. The keys of uploads that are gone come from the catalog, or the rows."""
    there = pl.Series(sorted(listing.by_song), dtype=pl.String)
    gone = files.song_ids.filter(~files.song_ids.is_in(there.implode()))
    replaced = pl.Series(sorted(_replaced(files, gone, listing)), dtype=pl.String)
    state = (
        pl.when(pl.col("song_id").is_in(there.implode()))
        .then(pl.lit(UploadState.PRESENT.value))
        .when(pl.col("song_id").is_in(replaced.implode()))
        .then(pl.lit(UploadState.REPLACED.value))
        .otherwise(pl.lit(UploadState.GONE.value))
    )
    return replace(files, versions=files.versions.with_columns(state.alias(UPLOAD)))


def state_of_upload(store: ObjectStore, song: str, key: str) -> UploadState:
    """The state of one song's upload, without a listing; present if its ``key`` cannot be asked for."""
    if fault_of_key(key) is not None:
        return UploadState.PRESENT
    try:
        found = store.head(key)
    except PermissionError:  # a link out of the store took its place, or only listings are permitted
        return UploadState.PRESENT
    if found is None:
        return UploadState.GONE
    return UploadState.REPLACED if is_replaced(store, song, key) else UploadState.PRESENT


def _replaced(files: SongFiles, gone: pl.Series, listing: Listing) -> Collection[str]:
    """Those of the songs ``gone`` whose key another upload has."""
    if not len(gone):
        return ()
    keys = {upload.key for upload in listing.uploads}
    rows = read_rows(files.store, SONG_CATALOG, ("song_id", "upload_key"))
    known = dict(rows.iter_rows()) if rows is not None else {}
    unknown = gone.filter(~gone.is_in(pl.Series(list(known), dtype=pl.String).implode()))
    if len(unknown):
        read = files.of(unknown).read(SONGS, lambda rows: rows.select("song_id", "upload_key"))
        known |= dict(read.iter_rows())
    return {song for song in gone if known.get(song) in keys}
