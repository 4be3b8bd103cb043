"""The format of audio inside Bandscope, and cutting a stream into blocks of equal length."""

import numpy as np
from numpy.typing import NDArray

MIXTURE = "mixture"  # the source that is no stem
SAMPLE_RATE = 44_100  # Hz, stereo: the training data of the separators
BLOCK_FRAMES = 441_000  # 10 s: the audio in one row of the audio tables


class Reblock:
    """Cuts arrays of any length into blocks of exactly ``frames``; the last axis is time.

    All arrays must have the leading axes of the first (channels, or stems × channels). A block from within one pushed
    array is a view of it; only blocks that join several arrays are copies.
    """

    def __init__(self, frames: int) -> None:
        if frames < 1:
            raise ValueError(f"a block must have at least 1 frame, not {frames}")
        self.frames = frames
        self._parts: list[NDArray[np.float32]] = []
        self._held = 0  # frames in _parts, always fewer than one block between calls

    def push(self, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Add ``(..., n)``; return the blocks ``(..., frames)`` that are now full: none, one or several."""
        full: list[NDArray[np.float32]] = []
        start = 0
        if self._held:
            start = min(self.frames - self._held, array.shape[-1])
            self._hold(array[..., :start])
            if self._held < self.frames:
                return full
            full.append(self._release())
        while array.shape[-1] - start >= self.frames:
            full.append(array[..., start : start + self.frames])
            start += self.frames
        self._hold(array[..., start:])
        return full

    def finish(self) -> NDArray[np.float32] | None:
        """The rest, ``(..., n)`` with ``0 < n < frames``; None if the stream ended with a full block."""
        return self._release() if self._held else None

    def _hold(self, part: NDArray[np.float32]) -> None:
        if part.shape[-1]:
            self._parts.append(part)
            self._held += part.shape[-1]

    def _release(self) -> NDArray[np.float32]:
        block = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=-1)
        self._parts, self._held = [], 0
        return block
