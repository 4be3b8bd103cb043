"""The type `Column`, and the columns of the per-song tables and of the error tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

UTC_TIME = pa.timestamp("us", tz="UTC")
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # the type of datasets.Audio()


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Its description and unit are in the schema of every file."""

    name: str
    type: pa.DataType
    description: str
    example: Any  # a possible value, of Python's own types
    unit: str = ""
    nullable: bool = True

    @property
    def field(self) -> Any:
        """The Arrow field; its metadata has the ``description`` and, if there is one, the ``unit``."""
        metadata = {"description": self.description} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)

    @property
    def example_text(self) -> str:
        """The example as text: lists and structs as JSON, bytes by their beginning."""
        if isinstance(self.example, str):
            return self.example
        return _plain(self.example) or json.dumps(self.example, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str | None:
    """A time or bytes as text, which JSON has no type for; None for other values."""
    match value:
        case datetime():
            return value.isoformat(sep=" ")
        case bytes():
            return f"{value.decode('latin-1')}…"
        case _:
            return None


SONG_ID_COLUMN = Column(
    "song_id",
    pa.string(),
    "Id of the song, which is its partition key",
    "night-bus-3f2a91c04b7e",
    nullable=False,
)

_TRUNCATED = "truncated: 12.40 of 187.20 s can be decoded (1 damaged packet); upload it again"
_ERROR = Column(
    "error",
    pa.string(),
    "Reason why the song has no result, as '<reason>: <message>'; null if it has one",
    f"upstream: {_TRUNCATED}",
)

SONG_COLUMNS = (
    SONG_ID_COLUMN,
    Column("song_hash", pa.string(), "SHA-256 of the uploaded bytes, in hex", "9f86d081884c7d65" * 4),
    Column("filename", pa.string(), "File name of the upload", "Night Bus.mp3"),
    Column("owner", pa.string(), "First folder below uploads/; null if there is none", "mia"),
    Column("upload_key", pa.string(), "Key of the upload in the object store", "uploads/mia/Night Bus.mp3"),
    Column(
        "uploaded_at",
        UTC_TIME,
        "Time when the upload was last modified",
        datetime(2026, 3, 1, 14, 5, 9, 120_000, tzinfo=UTC),
    ),
    Column("size_bytes", pa.int64(), "Size of the upload", 7_489_152, "byte"),
    Column("container", pa.string(), "Container format", "mp3"),
    Column("codec", pa.string(), "Audio codec", "mp3"),
    Column("sample_rate", pa.int32(), "Sample rate of the file", 48_000, "Hz"),
    Column("channels", pa.int32(), "Channels of the file", 2),
    Column("bit_rate", pa.int64(), "Bit rate of the file", 320_000, "bit/s"),
    Column("duration_s", pa.float64(), "Duration of the decoded audio", 187.2, "s"),
    Column("frames", pa.int64(), "Frames of the decoded audio at 44.1 kHz", 8_255_520, "frame"),
    Column("mono_mean", pa.float64(), "Mean of the mono mix, samples in [-1, 1]", -1.7e-05),
    Column("mono_std", pa.float64(), "Standard deviation of the mono mix, samples in [-1, 1]", 0.141),
    Column("peak", pa.float32(), "Largest absolute sample; 1 is full scale", 0.982),
    Column(
        "loudness_lufs",
        pa.float32(),
        "Integrated loudness (ITU-R BS.1770-4); null if too quiet. A mono file counts as two equal channels: 3 LU more",
        -14.3,
        "LUFS",
    ),
    Column(
        "rms_dbfs",
        pa.float32(),
        "Root mean square over both channels; 0 is full scale, null for digital silence",
        -16.8,
        "dBFS",
    ),
    Column("title", pa.string(), "Title in the file's tags", "Night Bus"),
    Column("artist", pa.string(), "Artist in the file's tags", "Mia Lindqvist"),
    Column("album", pa.string(), "Album in the file's tags", "Timetables"),
    Column("genre", pa.string(), "Genre in the file's tags", "Indie Pop"),
    Column(_ERROR.name, _ERROR.type, _ERROR.description, _TRUNCATED),
)

# Columns of version 2, after those of version 1.
SONG_QUALITY_COLUMNS = (
    Column(
        "bad_packets",
        pa.int32(),
        "Damaged packets; null for songs that were checked before damage was looked for",
        2,
    ),
    Column(
        "lost_s",
        pa.float64(),
        "Audio lost by damage: silence in its place, or missing at the end",
        0.14,
        "s",
    ),
    Column(
        "warning",
        pa.string(),
        "What a listener should know of a song that was accepted: damage, a doubtful end, guessed channels; null if "
        "the song is all the audio that there is",
        "2 packets are damaged; 0.14 s of silence are in place of lost audio",
    ),
    Column("audio_stream", pa.int32(), "Number of the decoded audio stream in the file, from 1", 1),
    Column("audio_streams", pa.int32(), "Number of audio streams in the file", 1),
    Column(
        "true_peak_dbtp",
        pa.float32(),
        "Largest absolute value, also between samples (ITU-R BS.1770-4, annex 2); null for digital silence",
        -0.6,
        "dBTP",
    ),
)

BLOCK_COLUMN = Column("block", pa.int32(), "Number of the 10 s block, counted from 0", 3)
STEM_COLUMNS = (
    Column("stem", pa.string(), "Name of the stem", "vocals"),
    Column("model", pa.string(), "Name of the separator", "htdemucs"),
)
BLOCK_COLUMNS = (
    Column("start_frame", pa.int64(), "Position of the block's first frame in the song", 1_323_000, "frame"),
    Column("frames", pa.int32(), "Frames in the block", 441_000, "frame"),
    Column("sample_rate", pa.int32(), "Sample rate of the audio", 44_100, "Hz"),
    Column("channels", pa.int32(), "Channels of the audio", 2),
    Column("peak", pa.float32(), "Largest absolute sample; 1 is full scale", 0.914),
    Column(
        "rms_dbfs",
        pa.float32(),
        "Root mean square over all channels; 0 is full scale, null for digital silence",
        -17.2,
        "dBFS",
    ),
    Column(
        "audio",
        AUDIO,
        "Samples of the block as FLAC",
        {"bytes": b"fLaC", "path": "night-bus-3f2a91c04b7e-vocals-00003.flac"},
    ),
    Column("gain", pa.float32(), "True amplitude = decoded sample times gain", 1.0),
    _ERROR,
)

TAG_COLUMNS = (
    SONG_ID_COLUMN,
    Column("source", pa.string(), "Audio that was tagged: 'mixture' or a stem's name", "vocals"),
    Column(
        "instrument",
        pa.string(),
        "Name of the instrument in the vocabulary, or the label if the vocabulary does not have it",
        "vocals",
    ),
    Column(
        "family",
        pa.string(),
        "Family of the instrument; null if the vocabulary does not have the label",
        "voice",
    ),
    Column("label", pa.string(), "Label from the model", "female vocal"),
    Column("score", pa.float32(), "Score from the model, in [0, 1]; null if the model has no scores", 0.62),
    Column("start_s", pa.float64(), "Start of the window", 27.0, "s"),
    Column("end_s", pa.float64(), "End of the window", 30.0, "s"),
    Column(
        "layer",
        pa.string(),
        "'foreground', 'middle_ground' or 'background'; null if the model names no layer",
        "foreground",
    ),
    Column("model", pa.string(), "Name of the tagger", "bandscope-instruments"),
    Column("detected_at", UTC_TIME, "Time when the model ran", datetime(2026, 3, 1, 14, 7, 31, tzinfo=UTC)),
    Column(
        "error",
        pa.string(),
        "Reason why the window, or the song if start_s is null, has no tags, as '<reason>: <message>'; else null",
        "unparseable: the answer ends before its first label",
    ),
    Column("mapped", pa.bool_(), "True if the vocabulary has the label", True),
    Column(
        "answer",
        pa.string(),
        "Whole answer of a language model for the window; null for other models",
        '["female vocals", "808 kick"]',
    ),
    Column(
        "note",
        pa.string(),
        "Parts of the answer that were repaired or dropped; null if there are none",
        "items dropped that are no labels: 1",
    ),
    Column(
        "level_dbfs",
        pa.float32(),
        "Root mean square of the source in the window, mixed to mono; 0 is full scale. Presence compares it with the "
        "level of the whole song. Null in files from before it was measured",
        -21.3,
        "dBFS",
    ),
)

ERROR_COLUMNS = (
    SONG_ID_COLUMN,
    Column("table", pa.string(), "Table that has no result", "stems", nullable=False),
    Column("stage", pa.string(), "Step of the failure: 'songs', or the table itself", "songs"),
    Column("reason", pa.string(), "Code of the reason, such as 'truncated' or 'unavailable'", "truncated"),
    Column(
        "message",
        pa.string(),
        "Description of the error",
        "12.40 of 187.20 s can be decoded (1 damaged packet); upload it again",
    ),
    Column("since", UTC_TIME, "Time when the error was written", datetime(2026, 3, 1, 14, 5, 12, tzinfo=UTC)),
)
