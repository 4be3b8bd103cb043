"""The waveform of one source for the player: its peaks and its RMS over time."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

COLUMNS: Final = 1600  # of a waveform: two per pixel of the widest plot


@dataclass(frozen=True, slots=True)
class Waveform:
    """Peak and RMS over time, in columns of equal length; 1.0 = full scale."""

    peak: NDArray[np.float64]  # (columns,), largest absolute sample
    rms: NDArray[np.float64]  # (columns,), root mean square over both channels


class WaveformMeter:
    """Measures a source of known length from its blocks, in order; keeps two numbers per column.

    ``EnvelopeMeter``, for the pictures in Dagster's UI, runs while a song is still being read. It knows neither the
    length nor the peaks, and a drum hit without its peak looks like a slow swell.
    """

    def __init__(self, frames: int, columns: int = COLUMNS) -> None:
        self._edges = np.linspace(0, max(frames, 1), min(columns, max(frames, 1)) + 1).astype(np.int64)
        self._peak = np.zeros(len(self._edges) - 1)
        self._energy = np.zeros(len(self._edges) - 1)
        self._frames = 0

    def push(self, block: NDArray[np.float32]) -> None:
        """Add the next block, ``(channels, n)`` float32; samples beyond the given length are ignored."""
        start = self._frames
        end = min(start + block.shape[1], int(self._edges[-1]))
        self._frames = start + block.shape[1]
        if end <= start:
            return
        first, last = np.searchsorted(self._edges, [start, end - 1], side="right") - 1
        begins = np.maximum(self._edges[first : last + 1], start) - start
        samples = block[:, : end - start]
        peaks = np.maximum.reduceat(np.abs(samples).max(axis=0), begins)
        self._peak[first : last + 1] = np.maximum(self._peak[first : last + 1], peaks)
        power = np.einsum("cn,cn->n", samples, samples) / len(samples)
        self._energy[first : last + 1] += np.add.reduceat(power, begins, dtype=np.float64)

    def finish(self) -> Waveform:
        """The waveform of all blocks so far."""
        return Waveform(self._peak, np.sqrt(self._energy / np.diff(self._edges)))
