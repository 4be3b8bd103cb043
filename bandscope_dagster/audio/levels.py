"""Levels of a song or a stem, measured block by block: peak, RMS, loudness, mean and deviation of the mono mix."""

import math
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.resample import StreamResampler

SILENCE_DB = -70.0
"""Everything below is silence: in LUFS, the absolute gate of ITU-R BS.1770-4; in dBFS, an RMS."""

FULL_SCALE = 32767 / 32768
"""The largest value of 16-bit audio, ±; a sample at or beyond it may be clipped."""

# ITU-R BS.1770-4: gating blocks of 400 ms that overlap by 75 %, an absolute gate at −70 LUFS, a relative gate 10 LU
# below the loudness of the blocks above the absolute gate, and −0.691 dB for the gain of the K-weighting at 1 kHz.
_HOP = SAMPLE_RATE // 10  # frames, 100 ms: from the start of one gating block to the next
_HOPS = 4  # hops in a gating block
_RELATIVE_GATE_LU = -10.0
_OFFSET_DB = -0.691

# Added to every sample: in digital silence the filter would decay to subnormal numbers, with which a CPU computes
# eighty times slower. Rounding removes it beside any sample that is not zero, and the high-pass removes a constant.
_BIAS = 1e-30


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of a stereo stream at 44.1 kHz."""

    peak: float  # largest absolute sample, 1.0 = full scale; not the true peak between samples
    energy: float  # sum of the squared samples of both channels
    rms_dbfs: float | None  # over both channels, 0 dBFS = a constant 1.0; None for digital silence
    loudness_lufs: float | None  # integrated; None below the absolute gate or for less than 400 ms

    @property
    def silent(self) -> bool:
        """True if nothing is audible: no loudness, and an RMS below ``SILENCE_DB``.

        The loudness finds a faint sound in a long silence. Audio of less than 400 ms has no loudness: there the RMS
        decides.
        """
        return self.loudness_lufs is None and (self.rms_dbfs is None or self.rms_dbfs < SILENCE_DB)


@dataclass(frozen=True, slots=True)
class SongStats:
    """Statistics of a whole song at 44.1 kHz stereo."""

    frames: int
    mono_mean: float  # of the mean of both channels
    mono_std: float | None  # unbiased, as torch.std; None for fewer than two frames
    peak: float  # largest absolute sample, 1.0 = full scale; not the true peak between samples
    rms_dbfs: float | None  # over both channels, 0 dBFS = a constant 1.0; None for digital silence
    loudness_lufs: float | None  # integrated; None below the absolute gate or for less than 400 ms
    true_peak_dbtp: float | None  # largest absolute value, also between samples; None for digital silence


def peak(block: NDArray[np.float32]) -> float:
    """The largest absolute sample of ``(channels, n)``; 0.0 if n is 0."""
    return float(max(block.max(initial=0.0), -block.min(initial=0.0)))


def at_full_scale(block: NDArray[np.float32]) -> int:
    """The number of samples of ``(channels, n)`` at or beyond full scale."""
    return int(np.count_nonzero(np.abs(block) >= FULL_SCALE))


def rms_dbfs(block: NDArray[np.float32]) -> float | None:
    """The root mean square of ``(channels, n)`` in dB relative to a constant 1.0; None for digital silence."""
    return _dbfs(_energy(block), block.size)


class LevelMeter:
    """Measures the blocks of one stream, in order; keeps ten numbers per second and no samples."""

    def __init__(self) -> None:
        self._samples = 0
        self._peak = 0.0
        self._energy = 0.0
        self._loudness = _Loudness()

    def push(self, block: NDArray[np.float32]) -> None:
        """``(2, n)`` float32 at 44.1 kHz; any n."""
        if block.size == 0:
            return
        self._samples += block.size
        self._peak = max(self._peak, peak(block))
        self._energy += _energy(block)
        self._loudness.push(block)

    def finish(self) -> Levels:
        """The levels of everything pushed so far."""
        return Levels(
            peak=self._peak,
            energy=self._energy,
            rms_dbfs=_dbfs(self._energy, self._samples),
            loudness_lufs=self._loudness.integrated(),
        )


class SongMeter:
    """Measures the blocks of one song, in order: its levels, and mean and deviation of its mono mix."""

    def __init__(self) -> None:
        self._frames = 0
        self._mean = 0.0
        self._deviation = 0.0  # sum of squared differences from the mean
        self._levels = LevelMeter()
        # ITU-R BS.1770-4, annex 2, asks for at least 192 kHz. Four times the rate costs 2 ms per second of audio.
        self._oversampled = StreamResampler(SAMPLE_RATE, 4 * SAMPLE_RATE, channels=2)
        self._true_peak = 0.0

    def push(self, block: NDArray[np.float32]) -> None:
        """``(2, n)`` float32 at 44.1 kHz; any n."""
        count = block.shape[1]
        if count == 0:
            return
        mono = block.mean(axis=0, dtype=np.float64)
        mean = float(mono.mean())
        mono -= mean
        # Chan, Golub & LeVeque (1979): joins two parts without the loss of precision of Σx² − n·mean².
        total, shift = self._frames + count, mean - self._mean
        # einsum and not @: a sum of BLAS depends on the number of its threads, and a row must be the same everywhere.
        self._deviation += float(np.einsum("n,n->", mono, mono)) + shift**2 * self._frames * count / total
        self._mean += shift * count / total
        self._frames = total
        self._levels.push(block)
        self._true_peak = max(self._true_peak, peak(self._oversampled.push(block)))

    def finish(self) -> SongStats:
        """The statistics of everything that was pushed. Call it once, at the end."""
        levels = self._levels.finish()
        # The samples are points of the same curve, so that no sample is above its peak.
        highest = max(self._true_peak, peak(self._oversampled.finish()), levels.peak)
        return SongStats(
            frames=self._frames,
            mono_mean=self._mean,
            mono_std=math.sqrt(self._deviation / (self._frames - 1)) if self._frames > 1 else None,
            peak=levels.peak,
            rms_dbfs=levels.rms_dbfs,
            loudness_lufs=levels.loudness_lufs,
            true_peak_dbtp=20 * math.log10(highest) if levels.peak else None,
        )


class _Loudness:
    """Integrated loudness of a stereo stream (ITU-R BS.1770-4)."""

    def __init__(self) -> None:
        # Not at the top: they import scipy, which takes a third of the time in which a code server starts.
        import pyloudnorm
        from scipy.signal import sosfilt  # pyright: ignore[reportUnknownVariableType]

        # BS.1770 has coefficients of the K-weighting for 48 kHz only. These are the analog filters whose bilinear
        # transform at 48 kHz gives exactly those, as in libebur128 and FFmpeg: Brecht De Man, "Evaluation of
        # Implementations of the EBU R128 Loudness Measurement" (AES 145, 2018). pyloudnorm's default is 0.045 LU off.
        shelf = pyloudnorm.IIRfilter(
            3.99984385397, 0.7071752369554193, 1681.9744509555319, SAMPLE_RATE, "high_shelf_DeMan"
        )
        high_pass = pyloudnorm.IIRfilter(
            0.0, 0.5003270373253953, 38.13547087613982, SAMPLE_RATE, "high_pass_DeMan"
        )
        self._sections = np.array([[*stage.b, *stage.a] for stage in (shelf, high_pass)])
        self._state = np.zeros((len(self._sections), 2, 2))
        self._filter: Any = sosfilt  # its type hints are incomplete
        self._hops = array("d")  # energy of each complete hop, sum of both channels
        self._open = 0.0  # energy so far of the incomplete hop
        self._frames = 0

    def push(self, block: NDArray[np.float32]) -> None:
        samples = block.astype(np.float64)
        samples += _BIAS
        weighted, self._state = self._filter(self._sections, samples, axis=-1, zi=self._state)
        power = np.einsum("cn,cn->n", weighted, weighted)  # BS.1770 weights left and right with 1
        head = min(-self._frames % _HOP, len(power))
        self._frames += len(power)
        if head:
            self._open += float(power[:head].sum())
            if (self._frames - len(power) + head) % _HOP == 0:
                self._close_hop()
        whole = (len(power) - head) // _HOP
        self._hops.extend(power[head : head + whole * _HOP].reshape(whole, _HOP).sum(axis=1).tolist())
        self._open += float(power[head + whole * _HOP :].sum())

    def integrated(self) -> float | None:
        if len(self._hops) < _HOPS:
            return None
        energy = np.convolve(self._hops, np.ones(_HOPS), "valid") / (
            _HOPS * _HOP
        )  # of complete gating blocks only
        above = energy[energy >= _power(SILENCE_DB)]
        if not len(above):
            return None
        gated = above[above > _power(_lufs(float(above.mean())) + _RELATIVE_GATE_LU)]
        return _lufs(float(gated.mean()))

    def _close_hop(self) -> None:
        self._hops.append(self._open)
        self._open = 0.0


def _lufs(power: float) -> float:
    return _OFFSET_DB + 10 * math.log10(power)


def _power(lufs: float) -> float:
    return 10 ** ((lufs - _OFFSET_DB) / 10)


def _energy(block: NDArray[np.float32]) -> float:
    return float(np.einsum("cn,cn->", block, block, dtype=np.float64))


def _dbfs(energy: float, samples: int) -> float | None:
    return 10 * math.log10(energy / samples) if energy > 0 else None
