"""A separator and a tagger whose right answers are known, for songs of some seconds."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.separation.protocol import SegmentPlan
from bandscope_dagster.tagging.protocol import Heard, Tag, WindowPlan

Audio = NDArray[np.float32]

UNBEARABLE = 3.0  # peak from which on the models below call ``at_unbearable``
STEMS = ("most", "rest")
SHARES = np.array([0.75, 0.25], np.float32)  # of the mixture; exact in float32


@dataclass
class Shares:
    """A separator with a known answer: each stem is a share of the mixture, over segments that overlap."""

    batch: int = 1
    at_unbearable: Callable[[Audio], None] = lambda stems: None  # may raise or change the stems
    stems: tuple[str, ...] = STEMS
    plan: SegmentPlan = field(
        default_factory=lambda: SegmentPlan(
            2 * SAMPLE_RATE, SAMPLE_RATE, weights=np.ones(2 * SAMPLE_RATE, np.float32)
        )
    )
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("shares", "0" * 64))
    shorter_plans: tuple[SegmentPlan, ...] = ()
    device: str = "cpu"
    normalised: bool = False
    calls: list[int] = field(default_factory=list)  # number of segments in each call

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(segments))
        stems = SHARES[:, None, None] * segments.numpy()[:, None]
        for index, segment in enumerate(segments):
            if segment.abs().max() >= UNBEARABLE:
                self.at_unbearable(stems[index])
        return torch.from_numpy(stems)


@dataclass
class Level:
    """A tagger with a known answer: the piano's score is the window's level, the guitar's a tenth of it."""

    at_unbearable: Callable[[], float] = lambda: 1.0  # the score for such a window
    batch: int = 4
    plan: WindowPlan = field(default_factory=lambda: WindowPlan(16_000, length=48_000, hop=48_000, lead=256))
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("level", "1" * 64))
    device: str = "cpu"
    fixed_batch: bool = True

    def tag(self, windows: Audio) -> list[Heard]:
        heard: list[Heard] = []
        for window in windows:
            loudest = float(np.abs(window).max())
            score = self.at_unbearable() if loudest >= UNBEARABLE else min(loudest, 1.0)
            heard.append(Heard([Tag("piano", score), Tag("guitar", score / 10)]))
        return heard


def noise(seconds: float, seed: int = 0, level: float = 0.5) -> Audio:
    """Uniform noise in [-level, level], float32 of shape (2, frames); every seed gives another."""
    random = np.random.default_rng(seed)
    return random.uniform(-level, level, (2, round(seconds * SAMPLE_RATE))).astype(np.float32)
