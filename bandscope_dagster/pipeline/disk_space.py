"""Estimates the bytes that a run will write, and compares them with the free space of a local store."""

import shutil
from collections.abc import Collection, Iterable
from math import inf
from pathlib import PurePosixPath
from typing import Final

import polars as pl

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.pipeline.uploads import Listing, Upload
from bandscope_dagster.separation.chosen_stems import stems_of
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.lacking import Lacking
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, SONGS, STEMS
from bandscope_dagster.storage.tables.song_files import SongFiles

# Bytes per second of audio and per song, measured on the demo's songs with 16-bit FLAC: docs/scale.md, "Storage".
WAVEFORM_BYTES_PER_S: Final = 83_000
STEM_BYTES_PER_S: Final = 97_000 / 2  # of each stem
OTHER_BYTES: Final = 35_000  # of a song's three other tables
STEMS_24_BIT: Final = 0.91 / 0.42  # 24-bit against 16-bit FLAC of real stems
OTHER_STEMS: Final = 4  # of a separator whose stems are not known

# Bytes per second of an upload whose duration is not known yet: usual, and at most. CD audio, and 24 bits at 96 kHz;
# half of that for lossless compression; 192 and 320 kbit/s; videos.
PCM: Final = (176_400, 576_000)
LOSSLESS: Final = (88_200, 300_000)
COMPRESSED: Final = (24_000, 40_000)
VIDEO: Final = (250_000, 5_000_000)
UPLOAD_BYTES_PER_S: Final = (
    dict.fromkeys((".wav", ".wave", ".w64", ".aif", ".aiff", ".caf"), PCM)
    | dict.fromkeys((".flac", ".wv"), LOSSLESS)
    | dict.fromkeys((".mp4", ".mov", ".mkv", ".webm", ".3gp"), VIDEO)
    | {".m4a": (COMPRESSED[0], LOSSLESS[1])}
)

CLEARLY: Final = (
    2.0  # a run is refused if it needs this many times the free space: an estimate is no more exact
)


class DiskTooSmall(BandscopeError):
    """The run needs clearly more space than is free; nothing was started."""


def check_space(
    files: SongFiles, listing: Listing, lacking: Lacking, songs: Collection[str], settings: Settings
) -> str | None:
    """A warning if ``songs`` may not fit on the disk of the store; None if they should, or the store is not local.

    Raises:
        DiskTooSmall: they need clearly more space than is free.
    """
    store = files.store
    if not isinstance(store, LocalStore) or not songs:
        return None
    free = shutil.disk_usage(store.root).free
    need, at_least = _needed(files, listing, lacking, songs, settings)
    if need <= free:
        return None
    words = (
        f"these songs need about {_gigabytes(need)} (estimated), and {store.url} has {_gigabytes(free)} free"
    )
    if at_least > CLEARLY * free:
        raise DiskTooSmall(
            f"{words}. Nothing was started. Make room, or compute some of them with --songs; `bandscope run"
            " --no-space-check` begins anyway, and keeps each song that is done before the disk is full"
        )
    return f"The disk may become full: {words}."


class Room:
    """The free space of a store, from which songs take their parts before they are computed."""

    def __init__(self, store: ObjectStore, settings: Settings) -> None:
        is_local = isinstance(store, LocalStore)
        self._free = float(shutil.disk_usage(store.root).free) if is_local else inf
        self._per_second = sum(_bytes_per_second(settings).values())

    def take(self, uploads: Iterable[Upload]) -> bool:
        """True if the tables of ``uploads`` probably fit too; they take their space then."""
        need = sum(OTHER_BYTES + _seconds(upload)[0] * self._per_second for upload in uploads)
        if need > self._free:
            return False
        self._free -= need
        return True


def _needed(
    files: SongFiles, listing: Listing, lacking: Lacking, songs: Collection[str], settings: Settings
) -> tuple[float, float]:
    """The bytes that the missing files of ``songs`` will have: probably, and at least."""
    per_second = _bytes_per_second(settings)
    incomplete = [song for song in songs if song in lacking.missing]
    seconds = known_seconds(files, incomplete)
    uploads = listing.by_song
    totals = [0.0, 0.0]
    for song in incomplete:
        lengths = (seconds.get(song, 0.0),) * 2
        if song not in seconds and song in uploads:
            lengths = _seconds(uploads[song])
        rates = sum(per_second.get(table, 0.0) for table in lacking.missing[song])
        totals = [total + OTHER_BYTES + length * rates for total, length in zip(totals, lengths, strict=True)]
    return totals[0], totals[1]


def known_seconds(files: SongFiles, songs: Collection[str]) -> dict[str, float]:
    """Song → its duration, of the songs that have a row; 0 for those with an error, of which nothing is computed."""
    known = files.of(pl.Series(sorted(songs), dtype=pl.String)).read(
        SONGS, lambda rows: rows.select("song_id", "duration_s", "error")
    )
    return {song: 0.0 if error else duration_s or 0.0 for song, duration_s, error in known.iter_rows()}


def _bytes_per_second(settings: Settings) -> dict[str, float]:
    """Table → the bytes that it needs for a second of audio."""
    count = len(settings.separation.stems or stems_of(settings.separator))
    stems = (count or OTHER_STEMS) * STEM_BYTES_PER_S
    return {
        DECODED_WAVEFORMS.name: WAVEFORM_BYTES_PER_S,
        STEMS.name: stems * (STEMS_24_BIT if settings.flac_bits == 24 else 1.0),
    }


def _seconds(upload: Upload) -> tuple[float, float]:
    """The duration of an upload by its size: probably, and at least."""
    usual, most = UPLOAD_BYTES_PER_S.get(PurePosixPath(upload.key).suffix.lower(), COMPRESSED)
    return upload.size / usual, upload.size / most


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
