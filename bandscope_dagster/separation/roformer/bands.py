"""The frequencies in each band of a RoFormer."""

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.models.networks import MEL_BANDS, RoformerNetwork

# Slaney's mel scale, as in the Auditory Toolbox (1998) and ``librosa.filters.mel(htk=False)``: linear below 1 kHz, and
# logarithmic above, with 27 bands for a factor of 6.4.
HZ_A_BAND = 200 / 3
LINEAR_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27


def frequencies_of_bands(shape: RoformerNetwork) -> list[list[int]]:
    """The indices of the frequencies of the spectrogram in each band."""
    if shape.bands == "mel":
        return mel_bands(shape.n_fft, MEL_BANDS)
    ends = np.cumsum(shape.bands)
    return [list(range(end - size, end)) for end, size in zip(ends.tolist(), shape.bands, strict=True)]


def mel_bands(n_fft: int, bands: int) -> list[list[int]]:
    """The frequencies in each triangle of the mel scale from 0 to 22.05 kHz; every frequency is in one or more.

    The first and the last frequency are the corner of a triangle, where its value is zero or rounded; the published
    networks count them as part of the first and the last band.
    """
    top = LINEAR_HZ / HZ_A_BAND + np.log(SAMPLE_RATE / 2 / LINEAR_HZ) / LOG_STEP
    corners = _to_hz(np.linspace(0, top, bands + 2))
    hertz = np.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1)
    found: list[list[int]] = []
    for low, high in zip(corners[:-2], corners[2:], strict=True):
        found.append(np.flatnonzero((hertz > low) & (hertz < high)).tolist())
    found[0] = sorted({0, *found[0]})
    found[-1] = sorted({n_fft // 2, *found[-1]})
    if not all(found):
        raise ValueError(
            f"{bands} mel bands are too narrow for windows of {n_fft} frames: some have no frequency"
        )
    return found


def _to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = LINEAR_HZ / HZ_A_BAND
    return np.where(mels < linear, HZ_A_BAND * mels, LINEAR_HZ * np.exp(LOG_STEP * (mels - linear)))
