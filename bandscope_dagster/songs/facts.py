"""Everything in the tables about one song except its audio, for its page and for ``bandscope status``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from bandscope_dagster.audio.blocks import MIXTURE, SAMPLE_RATE
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.songs.presence import PresentFrom, instruments_of
from bandscope_dagster.songs.status import SOURCES, Evidence, Status, read_evidence
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.frames import empty_frame, read_frame
from bandscope_dagster.storage.tables.lineage import (
    QUALITY_NOTE,
    USED_NOTE,
    Lineage,
    lineage_and_notes,
    read_footer,
)
from bandscope_dagster.storage.tables.schemas import (
    DECODED_WAVEFORMS,
    SONG_FAILURES,
    SONG_TABLES,
    SONGS,
    STEMS,
    TAG_TABLES,
    Table,
)
from bandscope_dagster.storage.tables.song_files import files_of

AUDIO_COLUMNS: Final = ("start_frame", "frames", "peak", "error")  # without the audio itself


@dataclass(frozen=True, slots=True)
class Interval:
    """A span of time in which an instrument is present."""

    start_s: float
    end_s: float
    score: float | None  # the largest of its windows; None if the tagger has no scores


@dataclass(frozen=True, slots=True)
class Instrument:
    """An instrument that is present in one source, as in ``instrument_catalog``."""

    source: str  # "mixture" or a stem
    name: str
    family: str | None  # None if the label is not in the vocabulary
    layer: str | None  # the foremost one
    score: float | None  # mean over the windows that contain it
    seconds: float  # in which it is present
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class TagCounts:
    """Counts over the song's rows in a tag table."""

    windows: int  # with rows
    lost: int  # of these, windows with an error instead of tags
    labels: int  # rows with an instrument
    unmapped: int  # of these, rows whose label is not in the vocabulary


@dataclass(frozen=True, slots=True)
class SongFacts:
    """The facts about one song in its current tables."""

    song: Mapping[str, Any]  # the row of ``songs``; if there is none, all values but ``song_id`` are None
    evidence: Evidence  # decides the status
    sources: tuple[str, ...]  # with audio to play: the mixture, then the stems
    frames: int  # of the audio, at 44.1 kHz
    peak: float  # of the loudest source; 1.0 = full scale
    instruments: tuple[Instrument, ...]  # by source, the longest present first
    tag_counts: Mapping[str, TagCounts]  # tag table → counts; only tables with a readable file
    quality: SeparationQuality | None
    used: Mapping[str, Any]  # device, batch and segment of the separation; empty if unknown
    lineages: Mapping[str, Lineage]  # table → lineage; only tables with a readable file

    @property
    def status(self) -> Status:
        """The song's status, as in ``song_catalog``."""
        return self.evidence.status

    @property
    def seconds(self) -> float:
        """The song's duration; 0.0 if it is unknown."""
        return self.frames / SAMPLE_RATE or self.song["duration_s"] or 0.0


def read_facts(store: ObjectStore, song_id: str, present_from: PresentFrom) -> SongFacts | None:
    """Read the facts about a song, without audio; None if neither ``songs`` nor ``song_failures`` has its file."""
    files = files_of(store, song_id, SOURCES)
    if not files.having(SONGS) and not files.having(SONG_FAILURES):
        return None
    evidence = read_evidence(files)[song_id]
    damaged = {problem.table for problem in evidence.damaged}
    stored = [table for table in SONG_TABLES if files.having(table) and table.name not in damaged]
    footers = {
        table.name: lineage_and_notes(footer, store, table, song_id)
        for table in stored
        if (footer := read_footer(store, table, song_id)) is not None
    }

    def rows(table: Table, *columns: str) -> pl.DataFrame:
        names = columns or table.names
        return (
            read_frame(store, table, song_id, names) if table in stored else empty_frame(table).select(names)
        )

    song = rows(SONGS)
    audio = {
        DECODED_WAVEFORMS.name: rows(DECODED_WAVEFORMS, *AUDIO_COLUMNS),
        STEMS.name: rows(STEMS, *AUDIO_COLUMNS, "stem"),
    }
    tags = {table.name: rows(table) for table in TAG_TABLES}
    playable = {name: blocks.filter(pl.col("error").is_null()) for name, blocks in audio.items()}
    whole = pl.concat(playable.values(), how="diagonal")
    notes = footers[STEMS.name][1] if STEMS.name in footers else {}
    return SongFacts(
        song=song.row(0, named=True) if song.height else dict.fromkeys(SONGS.names) | {"song_id": song_id},
        evidence=evidence,
        sources=_sources(playable),
        frames=int(whole.select((pl.col("start_frame") + pl.col("frames")).max()).item() or 0),
        peak=float(whole["peak"].max() or 0.0),  # pyright: ignore[reportArgumentType]
        instruments=present_instruments(pl.concat(tags.values()), present_from),
        tag_counts={table.name: _tag_counts(tags[table.name]) for table in TAG_TABLES if table in stored},
        quality=SeparationQuality.from_json(notes[QUALITY_NOTE]) if QUALITY_NOTE in notes else None,
        used=json.loads(notes.get(USED_NOTE, "{}")),
        lineages={table: lineage for table, (lineage, _) in footers.items()},
    )


def _sources(playable: Mapping[str, pl.DataFrame]) -> tuple[str, ...]:
    stems = playable[STEMS.name]["stem"].unique(maintain_order=True).to_list()
    return (*([MIXTURE] if playable[DECODED_WAVEFORMS.name].height else []), *stems)


def present_instruments(tags: pl.DataFrame, present_from: PresentFrom) -> tuple[Instrument, ...]:
    """The instruments that are present by the rows of a song's tag tables."""
    found = instruments_of(tags.lazy(), present_from).filter(pl.col("windows") > 0)
    order = ["source", "seconds_present", "score", "instrument"]
    longest_first = found.sort(order, descending=[False, True, True, False], nulls_last=True).collect()
    return tuple(
        Instrument(
            source=row["source"],
            name=row["instrument"],
            family=row["family"],
            layer=row["layer"],
            score=row["score"],
            seconds=row["seconds_present"],
            intervals=tuple(Interval(**interval) for interval in row["intervals"]),
        )
        for row in longest_first.iter_rows(named=True)
    )


def _tag_counts(rows: pl.DataFrame) -> TagCounts:
    windows = rows.filter(pl.col("start_s").is_not_null())
    labels = windows.filter(pl.col("instrument").is_not_null())
    return TagCounts(
        windows=windows.select("source", "start_s").n_unique() if windows.height else 0,
        lost=windows.filter(pl.col("error").is_not_null()).select("source", "start_s").n_unique(),
        labels=labels.height,
        unmapped=labels.filter(~pl.col("mapped")).height,
    )
