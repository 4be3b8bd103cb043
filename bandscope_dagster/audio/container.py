"""Open a hostile upload with FFmpeg: audio formats and decoders only, and nothing but the upload itself."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO, NoReturn

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from bandscope_dagster.audio.completeness import missing_part
from bandscope_dagster.errors import Reason, SongRejected

# Names of FFmpeg demuxers. None of them follows references to other files (as hls, concat or sdp do).
_DEMUXERS = ("wav", "w64", "aiff", "caf", "flac", "ogg", "mp3", "mov", "aac", "asf", "matroska", "wv")

# Names of FFmpeg decoders. FFmpeg opens a decoder for every stream of a file, also for pictures and video,
# unless it may not: a cover is never decoded here.
_DECODERS = (
    *("mp3float", "mp3", "mp2float", "mp2", "aac", "alac", "flac", "vorbis", "opus", "wavpack"),
    *("wmav1", "wmav2", "wmapro", "wmalossless", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt"),
    *("pcm_u8", "pcm_s8", "pcm_alaw", "pcm_mulaw"),
    *(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")),
)

# Decoders that can work on several frames at once (FLAC, WavPack, ALAC) do; two bounds what one song takes.
_THREADS = 2


@contextmanager
def open_audio(file: BinaryIO) -> Generator[tuple[InputContainer, AudioStream]]:
    """The opened container and its first audio stream (of a ``.stem.mp4``: the mixture).

    ``file`` is read from its beginning and left open. Raises :class:`SongRejected` for what is not audio.
    """
    file.seek(0)
    if not file.read(1):
        raise SongRejected(Reason.EMPTY, "the file has 0 bytes; upload it again")
    file.seek(0)
    try:
        container = av.open(
            _Nameless(file),
            mode="r",
            options={
                "format_whitelist": ",".join(_DEMUXERS),
                "codec_whitelist": ",".join(_DECODERS),
                "protocol_whitelist": "none",
            },
            metadata_errors="surrogateescape",
            io_open=_refuse,
        )
    except MemoryError:  # of FFmpeg too: it says nothing about the format
        raise
    except FFmpegError as error:
        if missing := missing_part(file):
            raise SongRejected(Reason.TRUNCATED, missing) from error
        raise SongRejected(
            Reason.NOT_AUDIO,
            "the file is in no audio format that is known here; see the README for those that are",
        ) from error
    with container:
        yield container, _first_audio(container)


def _first_audio(container: InputContainer) -> AudioStream:
    if not container.streams.audio:
        kinds = sorted({stream.type for stream in container.streams}) or ["no stream at all"]
        raise SongRejected(Reason.NO_AUDIO_STREAM, f"the file holds {', '.join(kinds)}, but no audio")
    stream = container.streams.audio[0]
    # PyAV has no codec context where FFmpeg has no decoder.
    codec = getattr(stream.codec_context, "name", "unknown")
    if codec not in _DECODERS:
        raise SongRejected(
            Reason.UNSUPPORTED_FORMAT, f"the codec {codec} is not decoded here; convert the file to FLAC"
        )
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = _THREADS
    return stream


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """FFmpeg calls this when a file refers to another one."""
    raise PermissionError("an upload may not refer to another file")


class _Nameless:
    """The upload without its name: FFmpeg would guess the format and resolve references from it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = file.read
        self.tell = file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; negative, FFmpeg's sign of an error, for a place that a damaged header made up."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1
