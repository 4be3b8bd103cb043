"""A song in short, for those who receive results: its file, its error, and the instruments that are heard in it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from bandscope_dagster.songs.facts import Instrument, present_instruments
from bandscope_dagster.songs.presence import PresentFrom
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.frames import read_frame
from bandscope_dagster.storage.tables.schemas import SONGS, TAG_TABLES


@dataclass(frozen=True, slots=True)
class SongSummary:
    """The rows of one song in ``songs`` and the tag tables. All is empty if the song has no files any more."""

    upload_key: str | None
    filename: str | None
    song_hash: str | None  # SHA-256 of the upload
    duration_s: float | None
    error: str | None  # ``<reason>: <message>`` if the upload was rejected
    warning: str | None  # something that should be known of the audio or of its tags
    instruments: tuple[Instrument, ...]  # by source, the longest present first
    detected_at: datetime | None  # when its last window was tagged


def read_summary(store: ObjectStore, song_id: str, present_from: PresentFrom) -> SongSummary:
    """Read three small files of the song.

    Raises:
        DamagedFile: a file cannot be read.
        OSError: the store did not return a file.
    """
    rows = read_frame(store, SONGS, song_id)
    song: dict[str, Any] = rows.row(0, named=True) if rows.height else dict.fromkeys(SONGS.names)
    tags = pl.concat(read_frame(store, table, song_id) for table in TAG_TABLES)
    lost = tags.filter(pl.col("error").is_not_null(), pl.col("start_s").is_not_null()).height
    warnings = [song["warning"], f"{lost} windows without tags" if lost else None]
    return SongSummary(
        upload_key=song["upload_key"],
        filename=song["filename"],
        song_hash=song["song_hash"],
        duration_s=song["duration_s"],
        error=song["error"],
        warning="; ".join(text for text in warnings if text) or None,
        instruments=present_instruments(tags, present_from),
        detected_at=tags["detected_at"].max(),  # pyright: ignore[reportArgumentType]
    )
