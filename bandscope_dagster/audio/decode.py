"""Decode an upload to 44.1 kHz stereo in blocks of ten seconds, and check that it is complete."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE, Reblock
from bandscope_dagster.audio.completeness import TOLERATED_LOSS, missing_part
from bandscope_dagster.audio.downmix import MICROSOFT_ORDER, stereo_weights
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.foreign_tags import without_leading_tags
from bandscope_dagster.audio.frames import read_frames
from bandscope_dagster.audio.levels import peak
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.probe import check_format
from bandscope_dagster.audio.resample import StreamResampler
from bandscope_dagster.audio.samples import Silence, sample_format, samples_of
from bandscope_dagster.errors import Reason, SongRejected, counted

# Encoders add up to 4096 frames (WMA); some containers count them, and decoders drop them.
_TOLERATED_LOSS_S = 0.1

# The largest sample of a 32-bit integer, as some programs store it in a float. What is larger is no audio, and
# overflows in models.
_MAX_PEAK = 2.0**31

_UNNAMED = "NONE"  # FFmpeg's name of a channel without a place

_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "flt": 1.0, "dbl": 1.0}  # to full scale = 1.0


def decode(file: BinaryIO, limits: Limits, findings: Findings | None = None) -> Iterator[NDArray[np.float32]]:
    """Blocks ``(2, 441_000)`` float32 at 44.1 kHz; the last block may be shorter, and is never empty.

    Samples are not clipped and may exceed ±1. Mono is copied to both channels; more than two channels are mixed down
    with :func:`~bandscope_dagster.audio.downmix.stereo_weights`. Encoder delay and padding are removed if the file
    states them (MP3 with a LAME header, AAC in MP4, Vorbis, Opus). The sample rate and the channels may change within
    a song. Silence is in place of lost packets; ``findings`` has what was lost, after the last block.

    Raises :class:`SongRejected` as soon as an error is found. Errors about the length (truncated, too short) are
    found after the last block.
    """
    found = Findings() if findings is None else findings
    file = without_leading_tags(file)
    if missing := missing_part(file):
        if missing.share > TOLERATED_LOSS:
            raise SongRejected(Reason.TRUNCATED, f"{missing.message}; upload it again")
        found.note(missing.message)
    blocks = Reblock(BLOCK_FRAMES)
    produced = 0
    for part in _stereo_44k(read_frames(file, found), limits, found):
        # Check after resampling, which may overflow: one bad sample spoils every filter that follows.
        highest = peak(part)
        if not np.isfinite(highest):
            raise SongRejected(
                Reason.NOT_FINITE,
                "the file has samples that are infinite or not a number; export it again",
            )
        if highest > _MAX_PEAK:
            raise SongRejected(
                Reason.TOO_LOUD,
                f"the file has samples up to {highest:.2g}; full scale is 1, and the limit is {_MAX_PEAK:.2g}:"
                " export it again",
            )
        produced += part.shape[1]
        if produced > limits.max_duration_s * SAMPLE_RATE:
            raise SongRejected(
                Reason.TOO_LONG, f"the song is longer than the limit of {limits.max_duration_s:.0f} s"
            )
        yield from blocks.push(part)
    last = blocks.finish()
    if last is not None:
        yield last
    _check_whole(found, produced / SAMPLE_RATE, limits)


def _check_whole(found: Findings, decoded_s: float, limits: Limits) -> None:
    """Raise :class:`SongRejected` if too much is lost; add what is doubtful to the findings."""
    stated_s = found.stated_s
    missing_s = 0.0 if stated_s is None else stated_s - decoded_s
    if stated_s is not None and missing_s > 0:
        noticed = missing_s > _TOLERATED_LOSS_S
        if found.cut_inside or found.stopped_early or (found.ends_damaged and noticed):
            found.damage_s += missing_s
        elif noticed:
            # Programs that cut without encoding leave the length of the original in the header.
            found.note(
                f"the header states {stated_s:.2f} s, and the file ends after {decoded_s:.2f} s, after a whole packet"
            )
    whole_s = decoded_s + max(0.0, found.damage_s - found.silence_s)
    if found.damage_s > max(TOLERATED_LOSS * whole_s, _TOLERATED_LOSS_S):
        raise SongRejected(
            Reason.TRUNCATED,
            f"{max(0.0, whole_s - found.damage_s):.2f} of {whole_s:.2f} s can be decoded "
            f"({counted(found.bad_packets, 'damaged packet')}); upload it again",
        )
    if found.cut_inside:
        found.note("the file ends in the middle of a packet")
    if found.stopped_early:
        found.note("the file cannot be read to its end")
    if decoded_s == 0:
        raise SongRejected(Reason.NOT_AUDIO, "the file looks like audio, but no sample in it can be decoded")
    if decoded_s < limits.min_duration_s:
        raise SongRejected(
            Reason.TOO_SHORT,
            f"the song is {decoded_s:.6g} s long; the minimum is {limits.min_duration_s:g} s",
        )


def _stereo_44k(
    frames: Iterator[AudioFrame | Silence], limits: Limits, found: Findings
) -> Iterator[NDArray[np.float32]]:
    """``(2, n)`` float32 at 44.1 kHz, in parts of about a second, for any size of the codec's frames."""
    section: _Section | None = None
    lead: Silence | None = None  # before the first frame, which tells the channels
    for frame in frames:
        if isinstance(frame, Silence):
            if section is None:
                lead = frame
            else:
                yield from section.push_silence(frame)
            continue
        if section is None or not section.continues_with(frame):
            if section is not None:
                yield from section.finish()
            check_format(frame.sample_rate, frame.layout.nb_channels, limits)
            section = _Section(frame, found)
            if lead is not None:
                yield from section.push_silence(lead)
                lead = None
        yield from section.push(frame)
    if section is not None:
        yield from section.finish()


class _Section:
    """A section of a song with one sample rate, channel layout and sample format."""

    def __init__(self, first: AudioFrame, found: Findings) -> None:
        kind = sample_format(first)
        if kind not in _SCALES:
            raise SongRejected(
                Reason.UNSUPPORTED_FORMAT, f"unsupported sample format {kind}; convert the file to FLAC"
            )
        self._signature = _signature(first)
        self._zero = np.float32(128 if kind == "u8" else 0)
        self._scale = np.float32(_SCALES[kind])
        self._weights = stereo_weights(_channel_names(first, found))
        self._rate, self._channels = first.sample_rate, first.layout.nb_channels
        self._seconds = Reblock(first.sample_rate)
        self._resampler = StreamResampler(first.sample_rate, SAMPLE_RATE, channels=2)

    def continues_with(self, frame: AudioFrame) -> bool:
        return _signature(frame) == self._signature

    def push(self, frame: AudioFrame) -> Iterator[NDArray[np.float32]]:
        samples = samples_of(frame)
        with np.errstate(over="ignore", invalid="ignore"):  # decode() rejects samples that are not finite
            scaled = samples.astype(np.float32)
            if self._zero:
                scaled -= self._zero
            if self._scale != 1:
                scaled *= self._scale
        for second in self._seconds.push(scaled):
            yield self._resampler.push(self._stereo(second))

    def push_silence(self, silence: Silence) -> Iterator[NDArray[np.float32]]:
        """Silence of any length, a second at a time."""
        left = round(silence.samples * self._rate / silence.rate)
        while left > 0:
            count = min(left, self._rate)
            left -= count
            for second in self._seconds.push(np.zeros((self._channels, count), np.float32)):
                yield self._resampler.push(self._stereo(second))

    def finish(self) -> Iterator[NDArray[np.float32]]:
        rest = self._seconds.finish()
        if rest is not None:
            yield self._resampler.push(self._stereo(rest))
        yield self._resampler.finish()

    @np.errstate(over="ignore", invalid="ignore")
    def _stereo(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return samples if len(samples) == 2 else self._weights @ samples


def _channel_names(frame: AudioFrame, found: Findings) -> list[str]:
    names = [channel.name for channel in frame.layout.channels]
    guess = MICROSOFT_ORDER.get(len(names)) if found.microsoft_order else None
    if guess is None or set(names) != {_UNNAMED}:
        return names
    found.note(f"the file does not name its {len(names)} channels: they are taken as {' '.join(guess)}")
    return list(guess)


def _signature(frame: AudioFrame) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name
