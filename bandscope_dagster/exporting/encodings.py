"""The formats that producers get, and which of their samples fit."""

from dataclasses import dataclass
from typing import Final, Literal

from bandscope_dagster.errors import BandscopeError

AudioFormat = Literal["wav", "flac", "mp3"]
SampleBits = Literal["16", "24", "32f"]

MP3_BIT_RATE: Final = 320_000  # bit/s: the most that MP3 has
MP3_CEILING: Final = 10 ** (-1 / 20)
"""A lossy codec's peaks pass those of its input; AESTD1008 (2021) and EBU R 128 ask for 1 dB of headroom."""


class NoSuchEncoding(BandscopeError):
    """The format does not come with this number of bits; the message says with which it does."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How samples are written, in the terms of FFmpeg."""

    suffix: AudioFormat  # of the files; also the name of the muxer
    codec: str
    sample_format: str  # what the encoder takes
    bits: int | None  # of integer samples; None where they are floats
    ceiling: float  # the largest absolute sample that fits; infinite where any does


def _integer(suffix: AudioFormat, codec: str, bits: int) -> Encoding:
    return Encoding(suffix, codec, "s16" if bits == 16 else "s32", bits, ceiling=1.0)


_ENCODINGS: Final = {
    ("wav", "32f"): Encoding("wav", "pcm_f32le", "flt", None, float("inf")),
    ("wav", "24"): _integer("wav", "pcm_s24le", 24),
    ("wav", "16"): _integer("wav", "pcm_s16le", 16),
    ("flac", "24"): _integer("flac", "flac", 24),
    ("flac", "16"): _integer("flac", "flac", 16),
    ("mp3", None): Encoding("mp3", "libmp3lame", "fltp", None, MP3_CEILING),
}


def find_encoding(audio_format: AudioFormat, bits: SampleBits | None = None) -> Encoding:
    """The encoding of that name; without ``bits`` the one that keeps most (32-bit float WAV, 24-bit FLAC).

    Raises:
        NoSuchEncoding: the format does not come with that many bits.
    """
    offered = {depth: encoding for (suffix, depth), encoding in _ENCODINGS.items() if suffix == audio_format}
    if bits is None:
        return next(iter(offered.values()))
    if bits not in offered:
        depths = " or ".join(depth for depth in offered if depth)
        raise NoSuchEncoding(
            f"{audio_format} has no {bits} bits: leave --bits out" + (f", or give {depths}" if depths else "")
        )
    return offered[bits]
