"""What a column is, and the columns that several tables share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

UTC_TIME = pa.timestamp("us", tz="UTC")
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # what datasets.Audio() reads and writes


@dataclass(frozen=True, slots=True)
class Column:
    """One column; its description and unit travel in the schema of every file."""

    name: str
    type: pa.DataType
    description: str
    example: Any  # a value that the column may have, of Python's own types
    unit: str = ""
    nullable: bool = True

    @property
    def field(self) -> Any:
        """The Arrow field; its metadata holds ``description`` and, where there is one, ``unit``."""
        metadata = {"description": self.description} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)

    @property
    def example_text(self) -> str:
        """The example as people read it: lists and structs as JSON, of bytes only the beginning."""
        if isinstance(self.example, str):
            return self.example
        return _plain(self.example) or json.dumps(self.example, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str | None:
    """What JSON has no word for."""
    match value:
        case datetime():
            return value.isoformat(sep=" ")
        case bytes():
            return f"{value.decode('latin-1')}…"
        case _:
            return None


SONG_ID_COLUMN = Column(
    "song_id", pa.string(), "The song: the partition key", "night-bus-3f2a91c04b7e", nullable=False
)

_TRUNCATED = "truncated: 12.40 of 187.20 s can be decoded (1 damaged packets); upload it again"
_ERROR = Column(
    "error",
    pa.string(),
    "Why there is no result, as '<reason>: <message>'; null where there is one",
    f"upstream: {_TRUNCATED}",
)

SONG_COLUMNS = (
    SONG_ID_COLUMN,
    Column("song_hash", pa.string(), "SHA-256 of the uploaded bytes, in hex", "9f86d081884c7d65" * 4),
    Column("filename", pa.string(), "The upload's own file name", "Night Bus.mp3"),
    Column("owner", pa.string(), "The first folder below uploads/, where there is one", "mia"),
    Column("upload_key", pa.string(), "The upload's key in the object store", "uploads/mia/Night Bus.mp3"),
    Column(
        "uploaded_at",
        UTC_TIME,
        "When the upload was last modified",
        datetime(2026, 3, 1, 14, 5, 9, 120_000, tzinfo=UTC),
    ),
    Column("size_bytes", pa.int64(), "Size of the upload", 7_489_152, "byte"),
    Column("container", pa.string(), "Container format", "mp3"),
    Column("codec", pa.string(), "Audio codec", "mp3"),
    Column("sample_rate", pa.int32(), "Sample rate of the file", 48_000, "Hz"),
    Column("channels", pa.int32(), "Channels of the file", 2),
    Column("bit_rate", pa.int64(), "Bit rate of the file", 320_000, "bit/s"),
    Column("duration_s", pa.float64(), "Duration of what was decoded", 187.2, "s"),
    Column("frames", pa.int64(), "Frames at 44.1 kHz", 8_255_520, "frame"),
    Column("mono_mean", pa.float64(), "Mean of the mono mix, samples in [-1, 1]", -1.7e-05),
    Column("mono_std", pa.float64(), "Standard deviation of the mono mix, samples in [-1, 1]", 0.141),
    Column("peak", pa.float32(), "Largest absolute sample; 1 is full scale", 0.982),
    Column(
        "loudness_lufs",
        pa.float32(),
        "Integrated loudness (ITU-R BS.1770-4); null where too quiet",
        -14.3,
        "LUFS",
    ),
    Column("rms_dbfs", pa.float32(), "Root mean square over both channels; 0 is full scale", -16.8, "dBFS"),
    Column("title", pa.string(), "Title in the file's tags", "Night Bus"),
    Column("artist", pa.string(), "Artist in the file's tags", "Mia Lindqvist"),
    Column("album", pa.string(), "Album in the file's tags", "Timetables"),
    Column("genre", pa.string(), "Genre in the file's tags", "Indie Pop"),
    Column(_ERROR.name, _ERROR.type, _ERROR.description, _TRUNCATED),
)

BLOCK = Column("block", pa.int32(), "Number of the 10 s block, from 0", 3)
BLOCK_COLUMNS = (
    Column("start_frame", pa.int64(), "The block's first frame in the song", 1_323_000, "frame"),
    Column("frames", pa.int32(), "Frames in the block", 441_000, "frame"),
    Column("sample_rate", pa.int32(), "Sample rate of the audio", 44_100, "Hz"),
    Column("channels", pa.int32(), "Channels of the audio", 2),
    Column("peak", pa.float32(), "Largest absolute sample; 1 is full scale", 0.914),
    Column("rms_dbfs", pa.float32(), "Root mean square over all channels; 0 is full scale", -17.2, "dBFS"),
    Column(
        "audio",
        AUDIO,
        "The samples as FLAC",
        {"bytes": b"fLaC", "path": "night-bus-3f2a91c04b7e-vocals-00003.flac"},
    ),
    Column("gain", pa.float32(), "True amplitude = decoded sample times gain", 1.0),
    _ERROR,
)

TAG_COLUMNS = (
    SONG_ID_COLUMN,
    Column("source", pa.string(), "What was listened to: 'mixture' or a stem", "vocals"),
    Column(
        "instrument",
        pa.string(),
        "Instrument, by its name in the vocabulary, or the label where unmapped",
        "vocals",
    ),
    Column("family", pa.string(), "The instrument's family; null where unmapped", "voice"),
    Column("label", pa.string(), "The model's own word", "female vocal"),
    Column("score", pa.float32(), "The model's score in [0, 1]; null where it gives none", 0.62),
    Column("start_s", pa.float64(), "Start of the window", 27.0, "s"),
    Column("end_s", pa.float64(), "End of the window", 30.0, "s"),
    Column("layer", pa.string(), "'foreground', 'middle_ground', 'background', or null", "foreground"),
    Column("model", pa.string(), "The tagger", "musicnn"),
    Column("detected_at", UTC_TIME, "When the model ran", datetime(2026, 3, 1, 14, 7, 31, tzinfo=UTC)),
    Column(
        "error",
        pa.string(),
        "Why the song (start_s is null) or the window has no tags, as '<reason>: <message>'; null where it has",
        "unparseable: the answer ends before its first label",
    ),
    Column("mapped", pa.bool_(), "Whether the vocabulary knows the label", True),
    Column(
        "answer",
        pa.string(),
        "All that a language model said of the window; null for other models",
        '["female vocals", "808 kick"]',
    ),
    Column(
        "note", pa.string(), "What of the answer was mended or dropped", "items dropped that are no labels: 1"
    ),
)

ERROR_COLUMNS = (
    SONG_ID_COLUMN,
    Column("table", pa.string(), "The table that has no result", "stems", nullable=False),
    Column("stage", pa.string(), "Where it went wrong: 'songs', or the table itself", "songs"),
    Column("reason", pa.string(), "Code of the reason, such as 'truncated' or 'unavailable'", "truncated"),
    Column(
        "message",
        pa.string(),
        "What was wrong, in words",
        "12.40 of 187.20 s can be decoded (1 damaged packets); upload it again",
    ),
    Column("since", UTC_TIME, "When the error was written", datetime(2026, 3, 1, 14, 5, 12, tzinfo=UTC)),
)
