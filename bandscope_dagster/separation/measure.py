"""Measures the quality of a separation while it streams."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.levels import LevelMeasure
from bandscope_dagster.separation.quality import CEILING_DB, FLOOR_DB, SeparationQuality, StemQuality


class QualityMeasure:
    """Measures one song. Each stem holds ten numbers a second, the residual two in all.

    ``add_separated`` belongs to the thread of the model, which it costs about 0.6 ms per second of audio. ``add_stem``,
    where the filter of the loudness costs three times as much for every stem, may run in any other thread: the
    blocks of a stem one after another, several stems at once.
    """

    def __init__(self, stems: Sequence[str]) -> None:
        self._levels = {stem: LevelMeasure() for stem in stems}
        self._mixture = 0.0
        self._residual = 0.0

    def add_separated(self, mixture: NDArray[np.float32], stems: NDArray[np.float32]) -> None:
        """Add an aligned piece to the residual: mixture ``(2, frames)``, stems ``(stems, 2, frames)``."""
        self._mixture += _energy(mixture)
        self._residual += _energy(mixture - stems.sum(axis=0))

    def add_stem(self, stem: str, block: NDArray[np.float32]) -> None:
        """Add a stem's next block, ``(2, frames)`` float32 at 44.1 kHz."""
        self._levels[stem].push(block)

    def finish(self) -> SeparationQuality:
        """The quality of all that was added; the threads that added must be done."""
        found = {stem: measure.finish() for stem, measure in self._levels.items()}
        total = sum(levels.energy for levels in found.values())
        return SeparationQuality(
            residual_db=self._residual_db(),
            stems=tuple(
                StemQuality(
                    stem=stem,
                    share=levels.energy / total if total else 0.0,
                    peak=levels.peak,
                    rms_dbfs=levels.rms_dbfs,
                    loudness_lufs=levels.loudness_lufs,
                    silent=levels.silent,
                )
                for stem, levels in found.items()
            ),
        )

    def _residual_db(self) -> float:
        if self._residual == 0.0:
            return FLOOR_DB
        if self._mixture == 0.0:
            return CEILING_DB
        return min(CEILING_DB, max(FLOOR_DB, 10 * math.log10(self._residual / self._mixture)))


def _energy(samples: NDArray[np.float32]) -> float:
    return float(np.einsum("cn,cn->", samples, samples, dtype=np.float64))
