"""A separator with segments of a few samples whose right answer is known: each stem is a share of the mixture."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.protocol import SegmentPlan
from bandscope_dagster.separation.streaming import Results, Separated, StreamingSeparation

Audio = NDArray[np.float32]

SHARES = np.array([0.75, 0.25, 0.5], np.float32)
RAMP = np.array([0.125, 0.375, 0.625, 0.875], np.float32)
FADES = np.concatenate([RAMP, np.ones(4, np.float32), RAMP[::-1]])  # overlapping fades sum to 1
FADED = SegmentPlan(length=12, stride=8, leads=(4,))


@dataclass
class Shares:
    """Return each stem's share of the mixture; apply the fades where the plan has no weights."""

    plan: SegmentPlan = FADED
    batch: int = 1
    shorter_plans: tuple[SegmentPlan, ...] = ()
    device: str = "cpu"
    normalised: bool = False
    stems: tuple[str, ...] = ("most", "rest", "half")
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("shares", "0" * 64))
    calls: list[tuple[int, int]] = field(default_factory=list)  # (segments, length in samples) of each call

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        self.calls.append((len(segments), segments.shape[-1]))
        windowed = segments * torch.from_numpy(FADES) if self.plan.weights is None else segments
        return torch.from_numpy(SHARES)[:, None, None] * windowed[:, None]


def song(frames: int, seed: int = 0) -> Audio:
    return np.random.default_rng(seed).uniform(-1, 1, (2, frames)).astype(np.float32)


def stems_of(mixture: Audio) -> Audio:
    return SHARES[:, None, None] * mixture


def joined(results: Results) -> dict[str, Separated]:
    """Each song's pieces joined into one; checks that only the last piece is marked as last."""
    pieces: defaultdict[str, list[Separated]] = defaultdict(list)
    for result in results:
        assert isinstance(result, Separated), result
        assert result.stems.shape[-1] == result.mixture.shape[-1]
        pieces[result.song].append(result)
    for parts in pieces.values():
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    return {
        name: Separated(
            name,
            np.concatenate([part.mixture for part in parts], axis=-1),
            np.concatenate([part.stems for part in parts], axis=-1),
            last=True,
            used=parts[-1].used,
        )
        for name, parts in pieces.items()
    }


def run(streaming: StreamingSeparation, songs: dict[str, Audio]) -> Results:
    """Push each song in one block, one after the other."""
    results: Results = []
    for name, samples in songs.items():
        streaming.open(name, Normalisation())
        results += [*streaming.push(name, samples), *streaming.finish(name)]
    return results + streaming.flush()
