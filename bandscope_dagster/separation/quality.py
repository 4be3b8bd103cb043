"""Quality of a separation: the residual against the mixture, and each stem's level and share of the energy."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.levels import LevelMeter

FLOOR_DB = -200.0  # reported for a residual of exactly zero; below any 32-bit float's resolution
CEILING_DB = 200.0  # reported where the stems have sound and the mixture is digital silence
RESIDUAL_LIMIT_DB = -20.0
"""A separation that loses or adds more than a hundredth of the mixture's energy is not to be trusted."""


@dataclass(frozen=True, slots=True)
class StemQuality:
    """One stem over a whole song, as it is stored."""

    stem: str
    # Of the energy of all stems, in [0, 1]; 0 for every stem if all are digital silence. If only some stems are stored,
    # the rest of the mixture counts as one more stem.
    share: float
    peak: float  # largest absolute sample, 1.0 = full scale
    rms_dbfs: float | None  # over both channels; None for digital silence
    loudness_lufs: float | None  # integrated, ITU-R BS.1770-4; None below its gate and for less than 400 ms
    silent: bool  # inaudible, by the rule of ``audio.levels.Levels``


@dataclass(frozen=True, slots=True)
class SeparationQuality:
    """A whole song's separation. All numbers are finite, so that JSON can hold them."""

    # Energy of mixture − Σ stems against the mixture's, in [FLOOR_DB, CEILING_DB]; None if only some stems are stored.
    residual_db: float | None
    stems: tuple[StemQuality, ...]

    @property
    def sums_to_mixture(self) -> bool:
        """True if the stems add up to the mixture: the residual is at most ``RESIDUAL_LIMIT_DB``.

        Also true if only some stems are stored, which need not add up to it.
        """
        return self.residual_db is None or self.residual_db <= RESIDUAL_LIMIT_DB

    def to_json(self) -> str:
        """One JSON object with the names of the fields."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SeparationQuality:
        """The inverse of ``to_json``; fields that a later version added are ignored."""
        values = json.loads(text)
        names = [entry.name for entry in fields(StemQuality)]
        stems = tuple(StemQuality(**{name: stem[name] for name in names}) for stem in values["stems"])
        return cls(values["residual_db"], stems)


class QualityMeter:
    """Measures the quality of one song's separation while it streams.

    All audio is as stored, after rounding to 16 or 24 bits, so that a reader of the tables finds the same figures. Each
    stem keeps ten numbers per second, the residual two in all. Call ``add_separated`` in the thread of the model; with
    the rounding, it takes 0.8 ms per second of audio with four stems. ``add_stem`` costs more, because of the loudness
    filter, and may run in any other thread: the blocks of one stem in order, several stems at once.
    """

    def __init__(self, stems: Sequence[str], *, all_stems: bool = True) -> None:
        """Measure ``stems``: all that the separator has, or a choice of them."""
        self._all_stems = all_stems
        self._levels = {stem: LevelMeter() for stem in stems}
        self._mixture = 0.0
        self._residual = 0.0

    def add_separated(self, mixture: NDArray[np.float32], stems: Sequence[NDArray[np.float32]]) -> None:
        """Add an aligned block to the residual: the mixture and each stem, ``(2, frames)`` float32."""
        self._mixture += _energy(mixture)
        # In float64: the sum of 24-bit stems has more bits than float32.
        residual = mixture.astype(np.float64)
        for stem in stems:
            residual -= stem
        self._residual += _energy(residual)

    def add_stem(self, stem: str, block: NDArray[np.float32]) -> None:
        """Add a stem's next block, ``(2, frames)`` float32 at 44.1 kHz."""
        self._levels[stem].push(block)

    def finish(self) -> SeparationQuality:
        """The quality of everything that was added; call it after the threads that add are done."""
        found = {stem: measure.finish() for stem, measure in self._levels.items()}
        total = sum(levels.energy for levels in found.values())
        if not self._all_stems:
            total += self._residual  # what the other stems share, as one stem
        return SeparationQuality(
            residual_db=self._residual_db() if self._all_stems else None,
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


def _energy(samples: NDArray[np.floating]) -> float:
    return float(np.einsum("cn,cn->", samples, samples, dtype=np.float64))
