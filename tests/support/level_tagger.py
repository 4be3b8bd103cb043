"""A tagger with known results, for tests of the code around taggers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.tagging.protocol import Heard, Tag, WindowPlan
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.window_queue import WindowQueue

RATE = 1000  # Hz, of the audio and the windows, so that nothing is resampled
PLAN = WindowPlan(sample_rate=RATE, length=3000, hop=3000)
LOUD, FAINT = 0.5, 0.05  # levels of windows

Audio = NDArray[np.float32]


@dataclass
class ByLevel:
    """A tagger whose result for a window depends on the window's level."""

    heard_at: Callable[[float], Heard]
    batch: int = 4
    fixed_batch: bool = True
    device: str = "cpu"
    plan: WindowPlan = PLAN
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("by-level", "0" * 64))
    calls: list[int] = field(default_factory=list)  # windows in each call

    def tag(self, windows: Audio) -> list[Heard]:
        self.calls.append(len(windows))
        return [self.heard_at(float(np.abs(window).max())) for window in windows]


def always(*tags: Tag) -> Callable[[float], Heard]:
    """The same tags at every level."""
    return lambda _: Heard(tags)


def level(*windows: float) -> Audio:
    """Windows of 3 s, each of a constant level, ``(2, frames)``."""
    return np.repeat(np.float32(windows), PLAN.length)[None].repeat(2, axis=0)


def tagged(tagger: ByLevel, audio: Audio, source: str = "mixture") -> SourceTags:
    """The tags of one source, from a queue of its own."""
    queue, tags = WindowQueue(tagger), SourceTags(source, tagger, RATE)
    queue.add(tags, tags.push(audio))
    queue.add(tags, tags.finish())
    queue.flush()
    return tags
