"""The envelope of a source: its loudness over time, in at most 2048 values."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE

COLUMNS: Final = 2048  # most values of one source
FINEST: Final = 441  # frames per value at first: 10 ms, shorter than an ear can distinguish


@dataclass(frozen=True, slots=True)
class Envelope:
    """The energy of one source over time, in columns of ``width`` frames; the last may be shorter."""

    frames: int  # of the whole source, at 44.1 kHz
    width: int  # frames in a column
    energy: NDArray[np.float64]  # (columns,): sum over a column's frames of the channels' mean square

    @property
    def seconds(self) -> float:
        """The duration of the source in seconds."""
        return self.frames / SAMPLE_RATE

    @property
    def rms_dbfs(self) -> float | None:
        """The RMS of the whole source, 0 dBFS = a constant 1.0; None for digital silence."""
        energy = float(self.energy.sum())
        return 10 * math.log10(energy / self.frames) if energy > 0 else None

    def rms(self, parts: int) -> NDArray[np.float64]:
        """The RMS of each of ``parts`` equal parts, 1.0 = full scale; assumed constant within a column."""
        if self.frames == 0:
            return np.zeros(parts)
        edges = np.minimum(np.arange(len(self.energy) + 1) * self.width, self.frames)
        up_to = np.concatenate([[0.0], np.cumsum(self.energy)])
        energy = np.diff(np.interp(np.linspace(0, self.frames, parts + 1), edges, up_to))
        above_zero = np.maximum(energy, 0.0)  # interpolation may round to a value below zero
        return np.sqrt(above_zero * parts / self.frames)


class EnvelopeMeter:
    """Measures the blocks of one source, in order; uses 16 kB for any length.

    Sources are independent: each may have its own thread.
    """

    def __init__(self) -> None:
        self._frames = 0
        self._width = FINEST
        self._energy = np.zeros(COLUMNS)

    def push(self, block: NDArray[np.float32]) -> None:
        """Add the next ``(channels, n)`` float32 at 44.1 kHz; any n."""
        frames = block.shape[1]
        if frames == 0:
            return
        start, end = self._frames, self._frames + frames
        while end > COLUMNS * self._width:
            self._halve()
        first, last = start // self._width, (end - 1) // self._width
        begins = np.arange(first, last + 1) * self._width - start  # of each column, within the block
        begins[0] = 0
        power = np.einsum("cn,cn->n", block, block)
        self._energy[first : last + 1] += np.add.reduceat(power, begins, dtype=np.float64) / len(block)
        self._frames = end

    def finish(self) -> Envelope:
        """The envelope of everything pushed so far."""
        columns = -(-self._frames // self._width)
        return Envelope(self._frames, self._width, self._energy[:columns].copy())

    def _halve(self) -> None:
        """Join each two columns into one."""
        half = COLUMNS // 2
        self._energy[:half] = self._energy[0::2] + self._energy[1::2]
        self._energy[half:] = 0.0
        self._width *= 2
