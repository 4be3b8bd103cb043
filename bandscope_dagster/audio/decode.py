"""Decode an upload to 44.1 kHz stereo in blocks of ten seconds, and check that it is complete."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE, Reblock
from bandscope_dagster.audio.completeness import TOLERATED_LOSS, missing_part
from bandscope_dagster.audio.container import open_audio
from bandscope_dagster.audio.downmix import stereo_weights
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.probe import check_format, stated_duration
from bandscope_dagster.audio.resample import StreamResampler
from bandscope_dagster.errors import Reason, SongRejected

# Encoders add up to 4096 frames (WMA); some containers count them, and decoders drop them.
_TOLERATED_LOSS_S = 0.1

_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "flt": 1.0, "dbl": 1.0}  # to full scale = 1.0


def decode(file: BinaryIO, limits: Limits) -> Iterator[NDArray[np.float32]]:
    """Blocks ``(2, 441_000)`` float32 at 44.1 kHz; the last block may be shorter, and is never empty.

    Samples are not clipped and may exceed ±1. Mono is copied to both channels; more than two channels are mixed down
    with :func:`~bandscope_dagster.audio.downmix.stereo_weights`. Encoder delay and padding are removed if the file
    states them (MP3 with a LAME header, AAC in MP4, Vorbis, Opus). The sample rate and the channels may change within
    a song.

    Raises :class:`SongRejected` as soon as an error is found. Errors about the length (truncated, too short) are
    found after the last block.
    """
    if missing := missing_part(file):
        raise SongRejected(Reason.TRUNCATED, missing)
    with open_audio(file) as (container, stream):
        progress = _Progress(stated_s=stated_duration(file, container, stream))
        blocks = Reblock(BLOCK_FRAMES)
        produced = 0
        for part in _stereo_44k(_frames(container, stream, progress), limits):
            # Check after resampling, which may overflow: one bad sample spoils every filter that follows.
            if not np.isfinite(part).all():
                raise SongRejected(
                    Reason.NOT_FINITE,
                    "the file has samples that are infinite or not a number; export it again",
                )
            produced += part.shape[1]
            if produced > limits.max_duration_s * SAMPLE_RATE:
                raise SongRejected(
                    Reason.TOO_LONG, f"the song is longer than the limit of {limits.max_duration_s:.0f} s"
                )
            yield from blocks.push(part)
        _check_whole(progress, produced / SAMPLE_RATE, limits)
        last = blocks.finish()
        if last is not None:
            yield last


@dataclass(slots=True)
class _Progress:
    """The stated length and the damage of a song that is being decoded."""

    stated_s: float | None  # None if the file does not state it
    bad_packets: int = 0
    bad_s: float = 0.0  # stated length of the bad packets


def _check_whole(progress: _Progress, decoded_s: float, limits: Limits) -> None:
    expected = progress.stated_s or decoded_s + progress.bad_s
    missing = expected - decoded_s
    if missing > max(TOLERATED_LOSS * expected, _TOLERATED_LOSS_S):
        raise SongRejected(
            Reason.TRUNCATED,
            f"{decoded_s:.2f} of {expected:.2f} s can be decoded "
            f"({progress.bad_packets} damaged packets); upload it again",
        )
    if decoded_s == 0:
        raise SongRejected(Reason.NOT_AUDIO, "the file looks like audio, but no sample in it can be decoded")
    if decoded_s < limits.min_duration_s:
        raise SongRejected(
            Reason.TOO_SHORT,
            f"the song is {decoded_s:.2f} s long; the minimum is {limits.min_duration_s:g} s",
        )


def _frames(container: InputContainer, stream: AudioStream, progress: _Progress) -> Iterator[AudioFrame]:
    """All frames that can be decoded; damaged packets are counted and skipped."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except MemoryError:  # FFmpeg's own is a subclass, and no sign of damage
            raise
        except (StopIteration, FFmpegError):  # after an error, a demuxer has no more packets
            break
        try:
            yield from stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except FFmpegError:
            progress.bad_packets += 1
            progress.bad_s += float((packet.duration or 0) * (packet.time_base or 0))


def _stereo_44k(frames: Iterator[AudioFrame], limits: Limits) -> Iterator[NDArray[np.float32]]:
    """``(2, n)`` float32 at 44.1 kHz, in parts of about a second, for any size of the codec's frames."""
    section: _Section | None = None
    for frame in frames:
        if section is None or not section.continues_with(frame):
            if section is not None:
                yield from section.finish()
            check_format(frame.sample_rate, frame.layout.nb_channels, limits)
            section = _Section(frame)
        yield from section.push(frame)
    if section is not None:
        yield from section.finish()


class _Section:
    """A section of a song with one sample rate, channel layout and sample format."""

    def __init__(self, first: AudioFrame) -> None:
        kind = first.format.name.removesuffix("p")  # "p": planar, one array per channel
        if kind not in _SCALES:
            raise SongRejected(
                Reason.UNSUPPORTED_FORMAT, f"unsupported sample format {kind}; convert the file to FLAC"
            )
        self._signature = _signature(first)
        self._zero = np.float32(128 if kind == "u8" else 0)
        self._scale = np.float32(_SCALES[kind])
        self._weights = stereo_weights([channel.name for channel in first.layout.channels])
        self._seconds = Reblock(first.sample_rate)
        self._resampler = StreamResampler(first.sample_rate, SAMPLE_RATE, channels=2)

    def continues_with(self, frame: AudioFrame) -> bool:
        return _signature(frame) == self._signature

    def push(self, frame: AudioFrame) -> Iterator[NDArray[np.float32]]:
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(-1, frame.layout.nb_channels).T
        with np.errstate(over="ignore", invalid="ignore"):  # decode() rejects samples that are not finite
            scaled = (samples.astype(np.float32) - self._zero) * self._scale
        for second in self._seconds.push(scaled):
            yield self._resampler.push(self._stereo(second))

    def finish(self) -> Iterator[NDArray[np.float32]]:
        rest = self._seconds.finish()
        if rest is not None:
            yield self._resampler.push(self._stereo(rest))
        yield self._resampler.finish()

    @np.errstate(over="ignore", invalid="ignore")
    def _stereo(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return samples if len(samples) == 2 else self._weights @ samples


def _signature(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name
