"""The length that a file states of its audio stream. A length is only used if the container truly states it."""

from typing import BinaryIO

from av.audio.stream import AudioStream
from av.container import InputContainer

from bandscope_dagster.audio.container import decoder_name, has_video
from bandscope_dagster.audio.flac_headers import stated_samples
from bandscope_dagster.audio.mpeg import states_frame_count
from bandscope_dagster.audio.parts import Part

_OPUS_RATE = 48_000  # Hz


def stated_length(part: Part, container: InputContainer, stream: AudioStream) -> float | None:
    """The length in seconds that the file states of this stream; None if it states none.

    Only these states one: FLAC (STREAMINFO), WavPack, MP4 (the index), and MP3 with a number of frames. Matroska and
    ASF state only the length of the whole file, in which a video may be longer: that of ASF counts if the file has
    neither a video nor another audio stream. In WAV, AIFF and CAF the size of the audio chunk counts, which
    ``completeness.py`` checks; in Ogg the pages count. ADTS and other MP3 files have nothing of the kind: FFmpeg
    estimates their duration. The part's file keeps its position.
    """
    name = container.format.name
    if part.asf is not None:
        alone = len(container.streams.audio) == 1 and not has_video(container)
        return part.asf.length_s if alone else None
    if name == "flac":
        samples = stated_samples(stream.codec_context.extradata)
        return samples / stream.sample_rate if samples and stream.sample_rate else None
    if name != "wv" and not name.startswith("mov") and not (name == "mp3" and _has_frame_count(part.file)):
        return None
    if stream.duration is None or stream.time_base is None or stream.duration <= 0:
        return None
    return float(stream.duration * stream.time_base)


def header_duration(file: BinaryIO, container: InputContainer, stream: AudioStream) -> float | None:
    """The duration in the headers, also if it is that of the whole file; None if FFmpeg only estimates it."""
    name = container.format.name
    if name == "aac" or (name == "mp3" and not _has_frame_count(file)):
        return None
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    else:
        duration = (container.duration or 0) / 1_000_000  # FFmpeg's AV_TIME_BASE: microseconds
    return duration if duration > 0 else None


def _has_frame_count(file: BinaryIO) -> bool:
    position = file.tell()
    try:
        return states_frame_count(file)
    finally:
        file.seek(position)


def ogg_seconds(stream: AudioStream, position: int) -> float:
    """The time of a position in an Ogg stream, in seconds. Opus counts at 48 kHz, from before its pre-skip."""
    if decoder_name(stream) != "opus":
        return position / stream.sample_rate if stream.sample_rate else 0.0
    skipped = int.from_bytes((stream.codec_context.extradata or b"")[10:12], "little")
    return (position - skipped) / _OPUS_RATE
