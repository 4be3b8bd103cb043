"""Cut a mono signal that arrives in blocks of any size into the windows of a tagger."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.levels import SILENCE_DB
from bandscope_dagster.tagging.protocol import WindowPlan

SHORTEST_REST_S: Final = 1.5
"""A rest of the song of at least this length gets a window, however long windows are: an instrument may enter in it."""

DIGITAL_SILENCE_DB: Final = -200.0  # dBFS; in place of minus infinity


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a song. Frames are at the plan's sample rate.

    ``frames`` is the length of the song, from ``start_frame``, that the tags of the window apply to: less than the
    plan's length in a song shorter than a window, and more if a short rest of the song is added to its last window.
    """

    start_frame: int
    frames: int
    samples: NDArray[np.float32]  # (lead + length,) mono in [-1, 1]
    level_dbfs: (
        float  # root mean square of the song's frames that the tagger hears; at least ``DIGITAL_SILENCE_DB``
    )

    @property
    def silent(self) -> bool:
        """True if nothing is audible: such windows are not tagged."""
        return self.level_dbfs < SILENCE_DB


class Windows:
    """Cuts one song into windows; holds at most one and a half windows and the block that is pushed.

    At the end of the song, a rest of at least ``SHORTEST_REST_S`` or half a window gets a window of its own, which
    ends with the song and so overlaps the window before. A shorter rest is added to the window before. A song shorter
    than one window is repeated to fill it, as musicnn does with short patches. An empty song has no windows.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        # A window is final if this many frames follow its end: the rest of the song gets a window of its own then.
        rest = min(-(-plan.length // 2), round(SHORTEST_REST_S * plan.sample_rate))
        self._final_after = min(plan.hop, rest)
        self._pending: list[NDArray[np.float32]] = []
        self._pending_from = 0  # the song's frame at the start of ``_pending``
        self._received = 0  # frames
        self._next_start = 0  # the song's frame at the start of the next window

    def push(self, block: NDArray[np.float32]) -> list[Window]:
        """Take the next ``(frames,)`` mono samples; return the windows that are now final."""
        if block.ndim != 1:
            raise ValueError(f"a block must be mono of shape (frames,), not {block.shape}")
        self._pending.append(np.array(block, dtype=np.float32))  # a copy: the caller may reuse its buffer
        self._received += len(block)

        windows: list[Window] = []
        while self._received >= self._next_start + self._plan.length + self._final_after:
            windows.append(self._window(self._next_start, self._plan.length))
            # Every later window starts at or after this frame, even one that is aligned to the end of the song.
            self._forget_before(self._next_start + self._final_after - self._plan.lead)
            self._next_start += self._plan.hop
        return windows

    def finish(self) -> list[Window]:
        """End the song; return its last window, or none if the song is empty."""
        length = self._plan.length
        if self._received == 0:
            return []
        if self._received < length:
            return [self._short_song()]
        if self._next_start + length <= self._received:
            return [self._window(self._next_start, self._received - self._next_start)]
        return [self._window(self._received - length, length)]

    def _window(self, start: int, frames: int) -> Window:
        begin = start - self._plan.lead
        pending = self._joined()
        samples = pending[max(begin, 0) - self._pending_from : start + self._plan.length - self._pending_from]
        if begin < 0:
            samples = np.pad(samples, (-begin, 0), "reflect")
        return self._seal(start, frames, samples.copy())  # a view would keep all pending samples alive

    def _short_song(self) -> Window:
        song = self._joined()
        samples = np.pad(np.resize(song, self._plan.length), (self._plan.lead, 0), "reflect")
        return self._seal(0, len(song), samples)

    def _seal(self, start: int, frames: int, samples: NDArray[np.float32]) -> Window:
        heard = samples[self._plan.lead :].astype(np.float64)
        level = 10 * math.log10(max(float(np.mean(heard**2)), 10 ** (DIGITAL_SILENCE_DB / 10)))
        return Window(start, frames, samples, level)

    def _joined(self) -> NDArray[np.float32]:
        if len(self._pending) > 1:
            self._pending = [np.concatenate(self._pending)]
        return self._pending[0]

    def _forget_before(self, frame: int) -> None:
        if frame > self._pending_from:
            self._pending = [self._joined()[frame - self._pending_from :].copy()]
            self._pending_from = frame
