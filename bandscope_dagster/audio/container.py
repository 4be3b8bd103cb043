"""Open a hostile upload with FFmpeg: only audio formats, only audio decoders, and no other file."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import BinaryIO, NoReturn, cast

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from bandscope_dagster.audio.completeness import missing_part
from bandscope_dagster.audio.file_view import FileView
from bandscope_dagster.audio.valid_bits import valid_bits_patch
from bandscope_dagster.errors import Reason, SongRejected

# Names of FFmpeg demuxers. None of them follows references to other files, as hls, concat and sdp do.
_DEMUXERS = ("wav", "w64", "aiff", "caf", "flac", "ogg", "mp3", "mov", "aac", "asf", "matroska", "wv")

# Names of FFmpeg decoders. FFmpeg opens a decoder for every stream of a file, also for pictures and video, unless a
# list of allowed ones leaves it out: a cover is never decoded.
_DECODERS = (
    *("mp3float", "mp3", "mp2float", "mp2", "aac", "alac", "flac", "vorbis", "opus", "wavpack"),
    *("wmav1", "wmav2", "wmapro", "wmalossless", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt"),
    *("pcm_u8", "pcm_s8", "pcm_alaw", "pcm_mulaw"),
    *(f"pcm_{kind}{order}" for kind in ("s16", "s24", "s32", "f32", "f64") for order in ("le", "be")),
)

# FFmpeg's names of codecs of pictures.
_PICTURES = ("mjpeg", "png", "bmp", "gif", "webp", "tiff")

# Decoders of formats with a checksum in each frame: FFmpeg ignores it by default.
_WITH_CHECKSUMS = ("flac", "wavpack")


@contextmanager
def open_audio(file: BinaryIO) -> Generator[tuple[InputContainer, AudioStream]]:
    """The opened container and its audio stream (of a ``.stem.mp4``: the mixture).

    Of several streams it is the one that is marked as the default, and of several such the first that can be decoded.
    ``file`` is read from its start and stays open. Raises :class:`SongRejected` if it is not audio.
    """
    file.seek(0)
    if not file.read(1):
        raise SongRejected(Reason.EMPTY, "the file is empty; upload it again")
    patches = valid_bits_patch(file)
    seen = cast(BinaryIO, FileView(file, patches=patches)) if patches else file
    seen.seek(0)
    try:
        container = av.open(
            _Nameless(seen),
            mode="r",
            options={
                "format_whitelist": ",".join(_DEMUXERS),
                "codec_whitelist": ",".join(_DECODERS),
                "protocol_whitelist": "none",
            },
            metadata_errors="surrogateescape",
            io_open=_refuse,
        )
    except MemoryError:  # FFmpeg's own is a subclass: it says nothing about the format
        raise
    except FFmpegError as error:
        if missing := missing_part(file):
            raise SongRejected(Reason.TRUNCATED, f"{missing.message}; upload it again") from error
        raise SongRejected(
            Reason.NOT_AUDIO, "unsupported audio format, or no audio at all; convert audio to FLAC or WAV"
        ) from error
    with container:
        yield container, _chosen(container)


def _chosen(container: InputContainer) -> AudioStream:
    streams = container.streams.audio
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        raise SongRejected(
            Reason.NO_AUDIO_STREAM, "the file has no audio stream" + (f", only {kinds}" if kinds else "")
        )
    decodable = [stream for stream in streams if decoder_name(stream) in _DECODERS]
    if not decodable:
        raise SongRejected(
            Reason.UNSUPPORTED_FORMAT,
            f"unsupported codec {decoder_name(streams[0])}; convert the file to FLAC",
        )
    marked = [stream for stream in decodable if stream.disposition & Disposition.default]
    stream = (marked or decodable)[0]
    # One thread: frames come with their packets, so that an error differs from the end of the file.
    stream.codec_context.thread_count = 1
    if stream.codec_context.name in _WITH_CHECKSUMS:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return stream


def decoder_name(stream: AudioStream) -> str:
    """FFmpeg's name of the stream's decoder; PyAV has no codec context if FFmpeg has no decoder."""
    return getattr(stream.codec_context, "name", "unknown")


def has_video(container: InputContainer) -> bool:
    """True if a video stream is more than a picture: programs also write a cover as a video of one picture."""
    return any(
        not stream.disposition & Disposition.attached_pic
        and (stream.average_rate or getattr(stream.codec_context, "name", None) not in _PICTURES)
        for stream in container.streams.video
    )


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    """Refuse to open another file that the upload refers to; FFmpeg calls this."""
    raise PermissionError("an upload may not refer to another file")


class _Nameless:
    """The upload without its name, from which FFmpeg would guess the format and resolve references."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.read = file.read
        self.tell = file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position; -1, an error to FFmpeg, if a damaged header states an impossible position."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1
