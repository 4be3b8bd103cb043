"""Make mixtures while training: powers of mel spectra add, up to the phases."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from bandscope_dagster.tagging.instruments_network import CLASSES, EAR_FRAMES, MEL_BANDS
from training.bank import NOTHING, Bank

SOURCES: Final = (0.07, 0.36, 0.27, 0.17, 0.09, 0.04)
EASY_SOURCES: Final = (0.07, 0.74, 0.19, 0.0, 0.0, 0.0)
"""The share of mixtures with none, one, two, … instruments: in general, and where training begins."""

SCENE_SHARE: Final = 0.2  # of the mixtures, where there are scenes
NEGATIVE_SHARE: Final = 0.2  # of the mixtures have a sound with no instrument in the background
QUIETEST_DB: Final = -12.0  # of a source, relative to the loudest it can have
AUDIBLE_DB: Final = -22.0  # of a source, relative to the mixture; below it the source does not count
ORIGIN_WEIGHTS: Final = {"rec": 2.0, "csound": 0.5}
"""How often an origin is chosen for a class, relative to the others: real notes more often, a font of 4 MB less."""

RESTING: Final = 1e-4  # mel power; the mean of a window below it is a rest of a take, and no instrument

TUNING_POINTS: Final = 7  # of a random equaliser over the bands


@dataclass(frozen=True, slots=True)
class Batch:
    """Mixtures: mel power for both branches, and the classes that are heard."""

    trunk: Tensor  # (batch, TRUNK_FRAMES, bands)
    ear: Tensor  # (batch, EAR_FRAMES, bands)
    heard: Tensor  # (batch, classes), 0 or 1


class Mixer:
    """An endless source of random mixtures from a bank."""

    def __init__(self, bank: Bank, seed: int) -> None:
        """The same bank and ``seed`` give the same mixtures."""
        self._bank = bank
        self._rng = np.random.default_rng(seed)
        places = np.linspace(0, TUNING_POINTS - 1, MEL_BANDS)
        self._hats = torch.from_numpy(
            np.maximum(0, 1 - np.abs(places - np.arange(TUNING_POINTS)[:, None])).astype(np.float32)
        )
        self._weights = [ORIGIN_WEIGHTS.get(origin.split("-")[0], 1.0) for origin in bank.origins]
        self._classes = [name for name in bank.singles if name != NOTHING]

    def batch(self, size: int, progress: float = 1.0) -> Batch:
        """``size`` mixtures: as easy as they get at a ``progress`` of 0, of the usual kind at 1."""
        rng = self._rng
        shares = progress * np.array(SOURCES) + (1 - progress) * np.array(EASY_SOURCES)
        owners: list[int] = []
        windows: list[tuple[Tensor, Tensor]] = []
        marks: list[np.ndarray] = []
        gains: list[float] = []
        for number in range(size):
            if self._bank.scenes and rng.random() < SCENE_SHARE * progress:
                take = self._bank.scenes[rng.integers(len(self._bank.scenes))]
                chosen = [(take, self._bank.heard(take))]
            else:
                count = int(rng.choice(len(shares), p=shares / shares.sum()))
                names = rng.choice(self._classes, count, replace=False)
                chosen = [self._single(int(name)) for name in names]
            for take, heard in chosen:
                owners.append(number)
                windows.append(self._bank.window(take, rng))
                marks.append(heard)
                gains.append(rng.uniform(QUIETEST_DB, 0))
            if NOTHING in self._bank.singles and (not chosen or rng.random() < NEGATIVE_SHARE):
                take, heard = self._single(NOTHING)
                owners.append(number)
                windows.append(self._bank.window(take, rng))
                marks.append(heard)
                gains.append(rng.uniform(-40, -12) if chosen else 0.0)
        return self._mixed(size, torch.tensor(owners), windows, np.array(marks), np.array(gains, np.float32))

    def _single(self, name: int) -> tuple[tuple[int, int], np.ndarray]:
        origins = self._bank.singles[name]
        weights = np.array([self._weights[number] for number in origins])
        kinds = origins[int(self._rng.choice(list(origins), p=weights / weights.sum()))]
        takes = kinds[self._rng.integers(len(kinds))]
        take = takes[self._rng.integers(len(takes))]
        return take, self._bank.heard(take)

    def _mixed(
        self,
        size: int,
        owners: Tensor,
        windows: list[tuple[Tensor, Tensor]],
        marks: np.ndarray,
        gains: np.ndarray,
    ) -> Batch:
        rng = self._rng
        trunk, ear = (torch.stack(list(part)) for part in zip(*windows, strict=True))
        tuned = 10 ** (self._curves(len(owners), 4, 5) / 10)[:, None]
        resting = trunk.mean((1, 2), keepdim=True) < RESTING
        level = (trunk * tuned).mean((1, 2), keepdim=True).masked_fill(resting, torch.inf)
        scale = tuned * (10 ** torch.from_numpy(gains / 10))[:, None, None] / level
        trunk, ear = trunk * scale, ear * scale
        power = trunk.mean((1, 2))
        total = torch.zeros(size).index_add_(0, owners, power)
        audible = 10 * torch.log10(power / total[owners].clamp_min(1e-12)) > AUDIBLE_DB
        heard = torch.zeros(size, len(CLASSES)).index_add_(
            0, owners, torch.from_numpy(marks).float() * audible[:, None]
        )
        mixes = [torch.zeros(size, *part.shape[1:]).index_add_(0, owners, part) for part in (trunk, ear)]

        # Hiss, at −55 to −22 dB in half of the mixtures; its power in a mel frame is distributed exponentially.
        hiss = np.where(rng.random(size) < 0.5, rng.uniform(-55, -22, size), -90).astype(np.float32)
        colour = 10 ** (self._curves(size, 3, 12) / 10)[:, None]
        hiss_power = (10 ** torch.from_numpy(hiss / 10))[:, None, None] * colour
        # The whole mixture through an equaliser; some have no highs or no lows.
        curve = self._curves(size, 4, 6)
        bands = torch.arange(MEL_BANDS)[None]
        for share, edge, slope in ((0.2, rng.uniform(45, 92, size), 6), (0.15, rng.uniform(2, 16, size), -4)):
            cut = torch.from_numpy(np.where(rng.random(size) < share, edge, np.inf * np.sign(slope)))[:, None]
            curve = curve - torch.nan_to_num(
                ((bands - cut) * np.sign(slope)).clamp_min(0) * abs(slope), posinf=0
            )
        shape = 10 ** (curve.float() / 10)[:, None]
        noise = torch.from_numpy(rng.exponential(1, mixes[0].shape).astype(np.float32))
        mixes = [(mix + hiss_power * noise) * shape for mix in mixes]
        return Batch(mixes[0], mixes[1][:, :EAR_FRAMES], heard.clamp_max(1))

    def _curves(self, count: int, depth_db: float, tilt_db: float) -> Tensor:
        """Random equalisers, ``(count, bands)`` in decibels."""
        points = self._rng.uniform(-depth_db, depth_db, (count, TUNING_POINTS))
        tilts = self._rng.uniform(-tilt_db, tilt_db, (count, 1)) * np.linspace(-1, 1, TUNING_POINTS)
        return torch.from_numpy((points + tilts).astype(np.float32)) @ self._hats
