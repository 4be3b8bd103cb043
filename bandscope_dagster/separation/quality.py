"""How good a separation is, measured while it streams: residual against the mixture, and each stem's share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FLOOR_DB = -200.0  # what is reported for a residual of exactly nothing; below any 32-bit float's resolution


@dataclass(slots=True)
class SeparationQuality:
    """Energies summed over a song, in float64, from aligned pieces of mixture and stems."""

    stems: Sequence[str]
    _mixture: float = 0.0
    _residual: float = 0.0
    _energy: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        self._energy = np.zeros(len(self.stems))

    def push(self, mixture: NDArray[np.float32], stems: NDArray[np.float32]) -> None:
        """Add a piece: mixture ``(2, frames)``, stems ``(stems, 2, frames)``, both float32."""
        residual = mixture - stems.sum(axis=0)
        self._mixture += _energy(mixture)
        self._residual += _energy(residual)
        self._energy += [_energy(stem) for stem in stems]

    @property
    def residual_db(self) -> float:
        """Energy of mixture minus the sum of the stems, against the mixture's energy, in dB."""
        if self._residual == 0.0:
            return FLOOR_DB
        if self._mixture == 0.0:
            return math.inf
        return max(FLOOR_DB, 10 * math.log10(self._residual / self._mixture))

    @property
    def shares(self) -> dict[str, float]:
        """Each stem's share of the stems' summed energy, in [0, 1]; all 0 for a silent song."""
        total = float(self._energy.sum())
        return {
            stem: float(energy / total) if total else 0.0
            for stem, energy in zip(self.stems, self._energy, strict=True)
        }


def _energy(samples: NDArray[np.float32]) -> float:
    flat = samples.ravel()
    return float(np.einsum("i,i->", flat, flat, dtype=np.float64))
