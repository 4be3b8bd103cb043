"""Change the sample rate of a stream with soxr, block by block and without delay."""

import numpy as np
import soxr
from numpy.typing import NDArray


class StreamResampler:
    """Resamples ``(channels, n)`` float32 blocks; the joined outputs equal one call with the whole song.

    Uses soxr's HQ recipe: linear phase, 97 dB measured for 22.05 → 44.1 kHz (swresample's default has 58 dB). soxr
    compensates the delay of its filter: the output is aligned with the input and ``round(n · out / in)`` frames long.
    If the rates are equal, blocks pass through unchanged.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        self._channels = channels
        self._soxr = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32", quality="HQ")
        )

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add ``(channels, n)`` at the input rate; return ``(channels, m)`` at the output rate; m may be 0."""
        return block if self._soxr is None else self._soxr.resample_chunk(block.T).T

    def finish(self) -> NDArray[np.float32]:
        """The last frames, ``(channels, m)``. Call it once, at the end."""
        empty = np.empty((self._channels, 0), np.float32)
        return empty if self._soxr is None else self._soxr.resample_chunk(empty.T, last=True).T
