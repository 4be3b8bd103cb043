"""What the tables know of one song, gathered for its page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import polars as pl

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.catalogs.song_errors import UPSTREAM
from bandscope_dagster.errors import has_failed
from bandscope_dagster.pages.sound import MIXTURE
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.songs.presence import PresentFrom, instruments_of
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import (
    QUALITY_NOTE,
    USED_NOTE,
    Lineage,
    lineage_and_notes,
    read_footer,
)
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    DECODED_WAVEFORMS,
    INSTRUMENT_TAGS,
    SONG_TABLES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    Table,
)
from bandscope_dagster.storage.tables.song_tables import read_table

TAG_TABLES: Final = (INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS)
AUDIO_NUMBERS: Final = ("start_frame", "frames", "peak", "error")


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of time in which an instrument is present."""

    start_s: float
    end_s: float
    score: float | None  # the largest of its windows; None where the tagger gives none


@dataclass(frozen=True, slots=True)
class Instrument:
    """An instrument that is present in one source: a row of ``instrument_catalog``."""

    source: str  # "mixture" or a stem
    name: str
    family: str | None  # None: the vocabulary does not know the label
    layer: str | None  # the foremost that it was heard in
    score: float | None  # mean over the windows that name it
    seconds: float  # of presence
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Tagging:
    """What a tag table holds beside the tags themselves."""

    windows: int  # that have rows
    lost: int  # of these, windows with an error instead of tags
    labels: int  # rows with an instrument
    unmapped: int  # of these, rows whose label the vocabulary does not know


@dataclass(frozen=True, slots=True)
class TableError:
    """Why a table has nothing of the song, or of some of its windows."""

    table: str
    message: str
    windows: int = 0  # 0: the whole table


@dataclass(frozen=True, slots=True)
class SongFacts:
    """One song, as its tables tell it now."""

    song: Mapping[str, Any]  # the row of ``songs``
    status: str  # as in ``song_catalog``
    errors: tuple[TableError, ...]
    missing: tuple[str, ...]  # the analysis tables without a file
    sources: tuple[str, ...]  # that can be played: the mixture, then the stems; empty where there is no audio
    frames: int  # of the audio, at 44.1 kHz
    peak: float  # of the loudest source; 1.0 = full scale
    instruments: tuple[Instrument, ...]  # by source, the most present first
    tagging: Mapping[str, Tagging]  # per tag table
    quality: SeparationQuality | None
    used: Mapping[str, Any]  # device, batch and segment of the separation, where they are known
    lineages: Mapping[str, Lineage]  # per table that has a file

    @property
    def seconds(self) -> float:
        """How long the song lasts; 0.0 where nobody knows."""
        return self.frames / SAMPLE_RATE or self.song["duration_s"] or 0.0


def gather(store: ObjectStore, song_id: str, present_from: PresentFrom) -> SongFacts | None:
    """Read what is known of a song; None where ``songs`` has no file of it. No audio is read."""
    rows = read_table(store, SONGS, song_id)
    if rows is None:
        return None
    song: dict[str, Any] = rows.to_pylist()[0]
    footers = {
        table.name: lineage_and_notes(footer, store, table, song_id)
        for table in SONG_TABLES
        if (footer := read_footer(store, table, song_id)) is not None
    }
    notes = footers[STEMS.name][1] if STEMS.name in footers else {}
    stored = [table for table in ANALYSIS_TABLES if table.name in footers]
    audio = {
        table.name: _frame(store, table, song_id, [*AUDIO_NUMBERS, *(["stem"] if table is STEMS else [])])
        for table in (DECODED_WAVEFORMS, STEMS)
    }
    tags = {table.name: _frame(store, table, song_id, table.names) for table in TAG_TABLES}
    errors = _errors(song["error"], {table.name: (audio | tags)[table.name] for table in stored})
    missing = tuple(table.name for table in ANALYSIS_TABLES if table not in stored)
    playable = {name: blocks.filter(pl.col("error").is_null()) for name, blocks in audio.items()}
    whole = pl.concat(playable.values(), how="diagonal")
    return SongFacts(
        song=song,
        status=_status(song["error"], errors, missing),
        errors=errors,
        missing=missing,
        sources=_sources(playable),
        frames=int(whole.select((pl.col("start_frame") + pl.col("frames")).max()).item() or 0),
        peak=float(whole["peak"].max() or 0.0),  # pyright: ignore[reportArgumentType]
        instruments=_instruments(tags, present_from),
        tagging={table.name: _tagging(tags[table.name]) for table in TAG_TABLES if table in stored},
        quality=SeparationQuality.from_json(notes[QUALITY_NOTE]) if QUALITY_NOTE in notes else None,
        used=json.loads(notes.get(USED_NOTE, "{}")),
        lineages={table: lineage for table, (lineage, _) in footers.items()},
    )


def _frame(store: ObjectStore, table: Table, song_id: str, columns: Any) -> pl.DataFrame:
    found: Any = read_table(store, table, song_id, list(columns))
    empty: Any = table.schema.empty_table().select(list(columns))
    return cast(pl.DataFrame, pl.from_arrow(empty if found is None else found))


def _sources(playable: Mapping[str, pl.DataFrame]) -> tuple[str, ...]:
    stems = playable[STEMS.name]["stem"].unique(maintain_order=True).to_list()
    return (*([MIXTURE] if playable[DECODED_WAVEFORMS.name].height else []), *stems)


def _errors(song_error: str | None, tables: Mapping[str, pl.DataFrame]) -> tuple[TableError, ...]:
    """One per table that has any, in the order of the pipeline."""
    found = [TableError(SONGS.name, song_error)] if song_error is not None else []
    for table, rows in tables.items():
        failed = rows.filter(pl.col("error").is_not_null())
        if failed.height:
            of_windows = "start_s" in rows.columns and failed["start_s"].null_count() == 0
            found.append(TableError(table, failed["error"][0], failed.height if of_windows else 0))
    return tuple(found)


def _status(song_error: str | None, errors: tuple[TableError, ...], missing: tuple[str, ...]) -> str:
    """The rule of ``song_catalog``, for one song."""
    if song_error is not None:
        return "failed" if has_failed(song_error) else "rejected"
    if own := [e for e in errors if not e.windows and not e.message.startswith(UPSTREAM)]:
        return "failed" if has_failed(own[0].message) else "rejected"
    # An error that was handed on, while ``songs`` no longer has it, is out of date.
    return "partial" if errors or missing else "ok"


def _instruments(tags: Mapping[str, pl.DataFrame], present_from: PresentFrom) -> tuple[Instrument, ...]:
    rows = pl.concat([tags[table.name] for table in TAG_TABLES])
    found = instruments_of(rows.lazy(), present_from).filter(pl.col("windows") > 0)
    order = ["source", "seconds_present", "score", "instrument"]
    most_first = found.sort(order, descending=[False, True, True, False], nulls_last=True).collect()
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
        for row in most_first.iter_rows(named=True)
    )


def _tagging(rows: pl.DataFrame) -> Tagging:
    windows = rows.filter(pl.col("start_s").is_not_null())
    labels = windows.filter(pl.col("instrument").is_not_null())
    return Tagging(
        windows=windows.select("source", "start_s").n_unique() if windows.height else 0,
        lost=windows.filter(pl.col("error").is_not_null()).select("source", "start_s").n_unique(),
        labels=labels.height,
        unmapped=labels.filter(~pl.col("mapped")).height,
    )
