"""The formats of exported files, and the largest sample of each."""

from dataclasses import dataclass
from typing import Final, Literal

from bandscope_dagster.errors import BandscopeError

AudioFormat = Literal["wav", "flac", "mp3"]
StemFileFormat = Literal["aac", "alac"]
SampleBits = Literal["16", "24", "32f"]

STEM_FILE: Final = "stem.mp4"
BIT_RATES: Final = {
    "libmp3lame": 320_000,  # bit/s, the highest of MP3
    "aac": 256_000,  # as the Stems files of stempeg
}
MP3_CEILING: Final = 10 ** (-1 / 20)
"""Headroom of 1 dB, as AESTD1008 (2021) and EBU R 128 require: the peaks of a lossy codec exceed those of its input."""


class NoSuchEncoding(BandscopeError):
    """The format does not support this number of bits; the message lists those that it supports."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of samples, in the terms of FFmpeg."""

    suffix: str  # file extension
    codec: str
    sample_format: str  # input of the encoder
    bits: int | None  # of integer samples; None for floats
    ceiling: float  # the largest absolute sample that fits; infinite for floats


def _integer(suffix: AudioFormat, codec: str, bits: int) -> Encoding:
    return Encoding(suffix, codec, "s16" if bits == 16 else "s32", bits, ceiling=1.0)


_ENCODINGS: Final = {
    ("wav", "32f"): Encoding("wav", "pcm_f32le", "flt", None, float("inf")),
    ("wav", "24"): _integer("wav", "pcm_s24le", 24),
    ("wav", "16"): _integer("wav", "pcm_s16le", 16),
    ("flac", "24"): _integer("flac", "flac", 24),
    ("flac", "16"): _integer("flac", "flac", 16),
    ("mp3", None): Encoding("mp3", "libmp3lame", "fltp", None, MP3_CEILING),
    # Planar samples, and 16 bits first: 24 bits take twice the space, and stems are stored with 16 unless set.
    ("alac", "16"): Encoding(STEM_FILE, "alac", "s16p", 16, ceiling=1.0),
    ("alac", "24"): Encoding(STEM_FILE, "alac", "s32p", 24, ceiling=1.0),
    ("aac", None): Encoding(STEM_FILE, "aac", "fltp", None, MP3_CEILING),
}


def find_encoding(audio_format: AudioFormat | StemFileFormat, bits: SampleBits | None = None) -> Encoding:
    """The encoding of a format; without ``bits``, that of 32-bit float WAV, 24-bit FLAC or 16-bit ALAC.

    AAC and ALAC are the formats of stem files.

    Raises:
        NoSuchEncoding: the format does not support that many bits.
    """
    offered = {depth: encoding for (name, depth), encoding in _ENCODINGS.items() if name == audio_format}
    if bits is None:
        return next(iter(offered.values()))
    if bits not in offered:
        depths = " or ".join(depth for depth in offered if depth)
        raise NoSuchEncoding(
            f"{audio_format} does not support --bits {bits}: omit the option"
            + (f" or use {depths}" if depths else "")
        )
    return offered[bits]
