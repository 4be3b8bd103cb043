"""How good a separation is: its residual against the mixture, and the level and share of each stem."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

FLOOR_DB = -200.0  # reported for a residual of exactly nothing; below any 32-bit float's resolution
CEILING_DB = 200.0  # reported where stems sound and the mixture is digital silence
RESIDUAL_LIMIT_DB = -20.0
"""A separation that loses or adds more than a hundredth of the mixture's energy is not to be trusted."""


@dataclass(frozen=True, slots=True)
class StemQuality:
    """One stem over a whole song, as it is stored."""

    stem: str
    share: float  # of the energy of all stems, in [0, 1]; 0 for all where all are digital silence
    peak: float  # largest absolute sample, 1.0 = full scale
    rms_dbfs: float | None  # over both channels; None for digital silence
    loudness_lufs: float | None  # integrated, ITU-R BS.1770-4; None below its gate and for less than 400 ms
    silent: bool  # nothing to be heard, by the rule of ``audio.measure.Levels``


@dataclass(frozen=True, slots=True)
class SeparationQuality:
    """A whole song's separation. All numbers are finite, so that JSON can hold them."""

    residual_db: float  # energy of mixture − Σ stems against the mixture's, in [FLOOR_DB, CEILING_DB]
    stems: tuple[StemQuality, ...]

    def to_json(self) -> str:
        """As one object, with the names of the fields."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> SeparationQuality:
        """The inverse of ``to_json``; what a later version has added is passed over."""
        values = json.loads(text)
        names = [entry.name for entry in fields(StemQuality)]
        stems = tuple(StemQuality(**{name: stem[name] for name in names}) for stem in values["stems"])
        return cls(values["residual_db"], stems)
