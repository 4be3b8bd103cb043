"""Normalisation of a song to zero mean and unit deviation, which is safe for silence and antiphase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

EPSILON: Final = 1e-8  # demucs/api.py, Separator.separate_tensor: std = ref.std() + 1e-8
LEAST_MONO_SHARE: Final = 1e-3  # −60 dB: below it, the level of the mono mix is not the level of the song


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Shift and scale of one song: the model's input is ``(samples - mean) / scale``."""

    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def of_song(
        cls, mono_mean: float | None, mono_std: float | None, rms_dbfs: float | None
    ) -> Normalisation:
        """The normalisation of demucs, from the columns of ``songs``.

        Demucs divides by the deviation of the mono mix. If the channels cancel each other, that is nearly zero, and the
        division would amplify the channels by up to 1e8; such a song is scaled by the RMS of its channels instead.
        Digital silence and a song of one frame stay unchanged.
        """
        if rms_dbfs is None or mono_mean is None or mono_std is None:
            return cls()
        rms = 10 ** (rms_dbfs / 20)
        if mono_std < LEAST_MONO_SHARE * rms:
            return cls(mean=0.0, scale=rms + EPSILON)
        return cls(mean=mono_mean, scale=mono_std + EPSILON)

    def apply(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """The normalised samples, float32 of any shape."""
        return (samples - np.float32(self.mean)) / np.float32(self.scale)
