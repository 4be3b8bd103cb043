"""The tables, each defined once: every column's name, type, unit and meaning, in the files' order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

# pyarrow has no stubs; these names say what a value is.
ArrowSchema: TypeAlias = Any  # pyarrow.Schema
ArrowTable: TypeAlias = Any  # pyarrow.Table

SONG_ID = re.compile(r"[a-z0-9-]{1,64}")

UTC_TIME = pa.timestamp("us", tz="UTC")
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # what datasets.Audio() reads and writes
STEM_SHARE = pa.struct([("stem", pa.string()), ("share", pa.float32())])
STEM_QUALITY = pa.struct(
    [
        ("stem", pa.string()),
        ("share", pa.float32()),
        ("peak", pa.float32()),
        ("rms_dbfs", pa.float32()),
        ("loudness_lufs", pa.float32()),
        ("silent", pa.bool_()),
    ]
)
INTERVAL = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("score", pa.float32())])
TOP_INSTRUMENT = pa.struct(
    [
        ("instrument", pa.string()),
        ("family", pa.string()),
        ("score", pa.float32()),
        ("seconds", pa.float32()),
    ]
)
SONG_INSTRUMENT = pa.struct(
    [
        *TOP_INSTRUMENT,
        ("layer", pa.string()),
        ("sources", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column; its description and unit travel in the schema of every file."""

    name: str
    type: pa.DataType
    description: str
    unit: str = ""
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """One table. Changes only append columns, so that files of all ages can be read together."""

    name: str
    description: str
    columns: tuple[Column, ...]

    @property
    def schema(self) -> ArrowSchema:
        """The Arrow schema; each field's metadata holds ``description`` and, where there is one, ``unit``."""
        return pa.schema([_field(column) for column in self.columns])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)


def table_key(table: Table, song_id: str) -> str:
    """The key of the song's file in a per-song table: ``<table>/<song_id>.parquet``."""
    if not SONG_ID.fullmatch(song_id):
        raise ValueError(f"{song_id!r} is no song id: it must match {SONG_ID.pattern}")
    return f"{table.name}/{song_id}.parquet"


def catalog_key(table: Table) -> str:
    """The key of the one file of a table over all songs."""
    return f"{table.name}/{table.name}.parquet"


def _field(column: Column) -> Any:
    metadata = {"description": column.description}
    if column.unit:
        metadata["unit"] = column.unit
    return pa.field(column.name, column.type, nullable=column.nullable, metadata=metadata)


_SONG_ID = Column("song_id", pa.string(), "The song: the partition key", nullable=False)
_ERROR = Column(
    "error", pa.string(), "Why there is no result, as '<reason>: <message>'; null where there is one"
)

_SONG_COLUMNS = (
    _SONG_ID,
    Column("song_hash", pa.string(), "SHA-256 of the uploaded bytes, in hex"),
    Column("filename", pa.string(), "The upload's own file name"),
    Column("owner", pa.string(), "The first folder below uploads/, where there is one"),
    Column("upload_key", pa.string(), "The upload's key in the object store"),
    Column("uploaded_at", UTC_TIME, "When the upload was last modified"),
    Column("size_bytes", pa.int64(), "Size of the upload", "byte"),
    Column("container", pa.string(), "Container format"),
    Column("codec", pa.string(), "Audio codec"),
    Column("sample_rate", pa.int32(), "Sample rate of the file", "Hz"),
    Column("channels", pa.int32(), "Channels of the file"),
    Column("bit_rate", pa.int64(), "Bit rate of the file", "bit/s"),
    Column("duration_s", pa.float64(), "Duration of what was decoded", "s"),
    Column("frames", pa.int64(), "Frames at 44.1 kHz", "frame"),
    Column("mono_mean", pa.float64(), "Mean of the mono mix, samples in [-1, 1]"),
    Column("mono_std", pa.float64(), "Standard deviation of the mono mix, samples in [-1, 1]"),
    Column("peak", pa.float32(), "Largest absolute sample; 1 is full scale"),
    Column(
        "loudness_lufs", pa.float32(), "Integrated loudness (ITU-R BS.1770-4); null where too quiet", "LUFS"
    ),
    Column("rms_dbfs", pa.float32(), "Root mean square over both channels; 0 is full scale", "dBFS"),
    Column("title", pa.string(), "Title in the file's tags"),
    Column("artist", pa.string(), "Artist in the file's tags"),
    Column("album", pa.string(), "Album in the file's tags"),
    Column("genre", pa.string(), "Genre in the file's tags"),
    _ERROR,
)

_BLOCK = Column("block", pa.int32(), "Number of the 10 s block, from 0")
_BLOCK_COLUMNS = (
    Column("start_frame", pa.int64(), "The block's first frame in the song", "frame"),
    Column("frames", pa.int32(), "Frames in the block", "frame"),
    Column("sample_rate", pa.int32(), "Sample rate of the audio", "Hz"),
    Column("channels", pa.int32(), "Channels of the audio"),
    Column("peak", pa.float32(), "Largest absolute sample; 1 is full scale"),
    Column("rms_dbfs", pa.float32(), "Root mean square over all channels; 0 is full scale", "dBFS"),
    Column("audio", AUDIO, "The samples as FLAC"),
    Column("gain", pa.float32(), "True amplitude = decoded sample times gain"),
    _ERROR,
)
_STEM_COLUMNS = (
    Column("stem", pa.string(), "Name of the stem"),
    Column("model", pa.string(), "The separator"),
)

_TAG_COLUMNS = (
    _SONG_ID,
    Column("source", pa.string(), "What was listened to: 'mixture' or a stem"),
    Column(
        "instrument", pa.string(), "Instrument, by its name in the vocabulary, or the label where unmapped"
    ),
    Column("family", pa.string(), "The instrument's family; null where unmapped"),
    Column("label", pa.string(), "The model's own word"),
    Column("score", pa.float32(), "The model's score in [0, 1]; null where it gives none"),
    Column("start_s", pa.float64(), "Start of the window", "s"),
    Column("end_s", pa.float64(), "End of the window", "s"),
    Column("layer", pa.string(), "'foreground', 'middle_ground', 'background', or null"),
    Column("model", pa.string(), "The tagger"),
    Column("detected_at", UTC_TIME, "When the model ran"),
    Column(
        "error",
        pa.string(),
        "Why the song (start_s is null) or the window has no tags, as '<reason>: <message>'; null where it has",
    ),
    Column("mapped", pa.bool_(), "Whether the vocabulary knows the label"),
    Column("answer", pa.string(), "All that a language model said of the window; null for other models"),
    Column("note", pa.string(), "What of the answer was mended or dropped"),
)
_WINDOWS = (
    "Silent windows have no rows. A window where a language model named nothing, or whose answer cannot be read "
    "(`error`), has one row without an instrument."
)

SONGS = Table(
    "songs",
    "One row per song: what the upload is, and whether it can be used. Every upload is read once and decoded to "
    "its end before any model sees it; a rejected one has its reason in `error`.",
    _SONG_COLUMNS,
)
DECODED_WAVEFORMS = Table(
    "decoded_waveforms",
    "One row per 10 s block of the song, decoded to 44.1 kHz stereo and stored as FLAC. A song that was rejected "
    "has one row, of which only `error` is filled; so have the tables below.",
    (_SONG_ID, _BLOCK, *_BLOCK_COLUMNS),
)
STEMS = Table(
    "stems",
    "One row per 10 s block and stem, stored as FLAC: the columns of decoded_waveforms, and after the block which "
    "stem it is and which model made it. The stems add up to the mixture.",
    (_SONG_ID, _BLOCK, *_STEM_COLUMNS, *_BLOCK_COLUMNS),
)
INSTRUMENT_TAGS = Table(
    "instrument_tags",
    f"One row per window of the mixture and instrument that the model heard there, with its score. {_WINDOWS}",
    _TAG_COLUMNS,
)
STEM_INSTRUMENT_TAGS = Table(
    "stem_instrument_tags",
    f"One row per window of a stem and instrument that the model heard there, with its score. {_WINDOWS}",
    _TAG_COLUMNS,
)
SONG_CATALOG = Table(
    "song_catalog",
    "One row per song: what it is, what it holds, and how far it got.",
    (
        *_SONG_COLUMNS,
        Column(
            "stem_energy_share",
            pa.list_(STEM_SHARE),
            "Each stem's share of the energy of all stems, in [0, 1]",
        ),
        Column(
            "top_instruments", pa.list_(TOP_INSTRUMENT), "At most five instruments of the mixture, best first"
        ),
        Column(
            "status",
            pa.string(),
            "'ok', 'partial' (tables are missing, or windows have no tags), 'rejected' (the upload cannot be used) or "
            "'failed' (the last run could not make a table: song_errors says why)",
            nullable=False,
        ),
        Column("missing_tables", pa.list_(pa.string()), "The analysis tables without a file for the song"),
        Column("separator", pa.string(), "The model that made the stems"),
        Column("tagger", pa.string(), "The model that tagged the mixture"),
        Column(
            "residual_db",
            pa.float32(),
            "Energy of mixture minus the sum of the stems, against the mixture's: -200 for an exact sum; null "
            "without stems",
            "dB",
        ),
        Column(
            "stem_quality",
            pa.list_(STEM_QUALITY),
            "Each stem over the whole song: share of the energy in [0, 1], largest absolute sample, RMS (dBFS; null "
            "for digital silence), integrated loudness (LUFS; null where too quiet), and whether it is silent",
        ),
        Column(
            "instruments",
            pa.list_(SONG_INSTRUMENT),
            "Every instrument that is present in the mixture or a stem, once, best first: its best mean score over the "
            "sources, the longest time of presence in one of them (seconds), the foremost layer (null where the tagger "
            "names none), and the sources where it is present. Voices have the family 'voice'; a song without any "
            "instrument has an empty list, one that was not tagged null",
        ),
    ),
)
INSTRUMENT_CATALOG = Table(
    "instrument_catalog",
    "One row per song, source and instrument, sorted by instrument and song so that readers skip the rest.",
    (
        _SONG_ID,
        Column("source", pa.string(), "What was listened to: 'mixture' or a stem"),
        Column("instrument", pa.string(), "Instrument, by its name in the vocabulary"),
        Column("family", pa.string(), "The instrument's family"),
        Column("score", pa.float32(), "Mean score over the windows that name it; null where there is none"),
        Column("score_max", pa.float32(), "Largest score"),
        Column("seconds_present", pa.float32(), "Time covered by the windows where it is present", "s"),
        Column("windows", pa.int32(), "Windows where it is present"),
        Column("first_s", pa.float64(), "Start of the first window where it is present", "s"),
        Column("last_s", pa.float64(), "End of the last window where it is present", "s"),
        Column("layer", pa.string(), "The foremost layer that it was heard in"),
        Column("model", pa.string(), "The tagger"),
        Column(
            "intervals",
            pa.list_(INTERVAL),
            "Where it is present (s), windows that touch or overlap joined to one, with the largest of their scores",
        ),
    ),
)
_ERROR_COLUMNS = (
    _SONG_ID,
    Column("table", pa.string(), "The table that has no result", nullable=False),
    Column("stage", pa.string(), "Where it went wrong: 'songs', or the table itself"),
    Column("reason", pa.string(), "Code of the reason, such as 'truncated' or 'unavailable'"),
    Column("message", pa.string(), "What was wrong, in words"),
    Column("since", UTC_TIME, "When the error was written"),
)
SONG_FAILURES = Table(
    "song_failures",
    "One row per song and table that the last run could not make: storage, memory, a bug. A song that has been made "
    "has none.",
    _ERROR_COLUMNS,
)
SONG_ERRORS = Table(
    "song_errors",
    "One row per song and table without a result, or with errors in some of its windows: what the tables hold as "
    "errors, and song_failures.",
    _ERROR_COLUMNS,
)

ANALYSIS_TABLES = (DECODED_WAVEFORMS, STEMS, INSTRUMENT_TAGS, STEM_INSTRUMENT_TAGS)
SONG_TABLES = (SONGS, *ANALYSIS_TABLES)  # one file per song
CATALOG_TABLES = (SONG_CATALOG, INSTRUMENT_CATALOG, SONG_ERRORS)  # one file for all songs
TABLES = {table.name: table for table in (*SONG_TABLES, SONG_FAILURES, *CATALOG_TABLES)}
