"""FLAC blocks with a gain, as the tables store audio: never clipped, and deterministic to the byte."""

import hashlib
import io
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE

Bits = Literal[16, 24]
Integers = NDArray[np.int16] | NDArray[np.int32]  # int16 for 16 bits, int32 for 24

# libsndfile maps 0..1 to FLAC's levels 0..8. Level 4 is as small as level 5 (0.559 of PCM for a loud real mixture) and
# takes 0.8 of its time: 0.38 s for three minutes.
_COMPRESSION_LEVEL = 0.5


class UndecodableBlock(ValueError):
    """The bytes of a stored block are damaged: they are no FLAC that can be decoded to its end."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A block as integers: true amplitude = ``samples / 2^(bits − 1) × gain``."""

    samples: Integers  # (2, n), in [−2^(bits − 1), 2^(bits − 1) − 1]
    gain: float  # a value that float32 holds exactly; 1.0 unless the peak would not fit
    bits: Bits


def quantize(block: NDArray[np.float32], bits: Bits = 16) -> Quantized:
    """Round ``(2, n)`` float32 to ``bits``; scale it down only if its peak would not fit.

    The error is at most half a step times the gain. There is no dither: stems must still add up to the mixture, and
    the samples of a 16-bit file must come back unchanged.
    """
    full = 2 ** (bits - 1)
    peak = float(np.abs(block).max(initial=0.0))
    if not np.isfinite(peak):
        raise ValueError("the block has samples that are not finite: FLAC cannot store them")
    # Exact: a power of two changes only the exponent.
    scaled = block * np.float32(full)
    np.rint(scaled, out=scaled)
    gain = 1.0
    if scaled.min(initial=0) < -full or scaled.max(initial=0) > full - 1:
        gain = _float32_at_least(peak * full / (full - 1))
        scaled = np.rint(block.astype(np.float64) * (full / gain))
    return Quantized(scaled.astype(np.int16) if bits == 16 else scaled.astype(np.int32), gain, bits)


def dequantize(quantized: Quantized) -> NDArray[np.float32]:
    """``(2, n)`` float32, bit for bit equal to ``decode_flac(encode(quantized), quantized.gain)``."""
    return _amplitudes(quantized.samples, 2.0 ** (1 - quantized.bits), quantized.gain)


def encode(quantized: Quantized) -> bytes:
    """The bytes of a complete FLAC file, 44.1 kHz stereo, at least one frame long."""
    if quantized.samples.shape[-1] == 0:
        raise ValueError("a FLAC block must have at least one frame")
    if quantized.bits == 16:
        samples, subtype = quantized.samples, "PCM_16"
    else:  # soundfile reads the upper 24 bits of an int32
        samples, subtype = quantized.samples << 8, "PCM_24"
    data = io.BytesIO()
    soundfile.write(
        data, samples.T, SAMPLE_RATE, subtype, format="FLAC", compression_level=_COMPRESSION_LEVEL
    )
    return data.getvalue()


def decode_flac(data: bytes, gain: float) -> NDArray[np.float32]:
    """The true amplitudes of a stored block, ``(2, n)`` float32.

    Raises:
        UndecodableBlock: the bytes are damaged.
    """
    return _amplitudes(_integers_of(data).T, 2.0**-31, gain)


def is_intact(data: bytes) -> bool:
    """True if a stored block can be decoded, and its samples have the MD5 of its header, if there is one."""
    try:
        samples = _integers_of(data)
    except UndecodableBlock:
        return False
    bits = (int.from_bytes(data[20:22], "big") >> 4 & 31) + 1  # RFC 9639, 8.2: STREAMINFO begins at byte 8
    stated = data[26:42]
    size = -(-bits // 8)
    shifted = np.ascontiguousarray(samples.reshape(-1) >> (32 - bits), "<i4").view("u1").reshape(-1, 4)
    found = hashlib.md5(shifted[:, :size].tobytes(), usedforsecurity=False).digest()
    return not any(stated) or stated == found


def _integers_of(data: bytes) -> NDArray[np.int32]:
    """``(n, 2)`` samples: int32 holds every sample exactly, in its upper bits for every bit depth."""
    try:
        return cast(NDArray[np.int32], soundfile.read(io.BytesIO(data), dtype="int32", always_2d=True)[0])
    except (soundfile.SoundFileError, ValueError) as error:
        raise UndecodableBlock(f"a stored block cannot be decoded: {error}") from error


def _amplitudes(samples: Integers, step: float, gain: float) -> NDArray[np.float32]:
    """Samples × step × gain. The step is exact in float32, with up to 24 bits times a power of two; the gain rounds."""
    amplitudes = np.multiply(samples, np.float32(step), dtype=np.float32, order="C")
    return amplitudes if gain == 1.0 else amplitudes * np.float32(gain)


def _float32_at_least(value: float) -> float:
    nearest = np.float32(value)
    return float(nearest if nearest >= value else np.nextafter(nearest, np.float32(np.inf)))
