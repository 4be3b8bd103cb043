"""The signal-to-distortion ratio of separated stems, by the two definitions with which figures are published.

BSS Eval v4 (Stöter, Liutkus & Ito, "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018; package museval):
the ratio of each second, and the median over the seconds of a track. In "images" mode, which published figures of MUSDB
have, its four parts add up to estimate minus truth, so the ratio needs no distortion filter. As in museval, a second in
which any true or estimated stem is digital silence has no ratio in any stem, an incomplete second at the end is left
out, and a second without any error has an infinite ratio.

MDX (Mitsufuji et al., "Music Demixing Challenge 2021", Frontiers in Signal Processing, 2022): one ratio over all
samples of a track, with 1e-7 added to both energies.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE

Audio = NDArray[np.floating]

FRAME: Final = SAMPLE_RATE  # frames at 44.1 kHz in a second: museval's window and hop of 1.0
DELTA: Final = 1e-7  # of the MDX challenge


@dataclass(frozen=True, slots=True)
class StemFigures:
    """The ratios of one stem of one track, in dB."""

    seconds: tuple[float, ...]  # of each second; NaN if a stem is silent there
    mdx: float  # over the whole track

    @property
    def v4(self) -> float | None:
        """The median over the seconds; None if no second has a ratio."""
        return _median([ratio for ratio in self.seconds if not math.isnan(ratio)])


class SdrMeter:
    """Measures the stems of one track, block by block; one second of each stem is in memory."""

    def __init__(self, stems: Sequence[str]) -> None:
        self._stems = tuple(stems)
        self._signal = np.zeros(len(stems))  # energy of the whole track
        self._error = np.zeros(len(stems))
        self._ratios: list[list[float]] = []  # second → ratio of each stem
        self._rest = np.zeros((2, len(stems), 2, 0))  # truth and estimate of the incomplete second

    def add(self, truth: Mapping[str, Audio], estimate: Mapping[str, Audio]) -> None:
        """Add the next aligned frames of every stem, each ``(2, n)``."""
        block = np.stack([[each[stem] for stem in self._stems] for each in (truth, estimate)]).astype(
            np.float64
        )
        self._signal += _energies(block[0])
        self._error += _energies(block[0] - block[1])
        waiting = np.concatenate([self._rest, block], axis=-1)
        whole = waiting.shape[-1] // FRAME * FRAME
        for start in range(0, whole, FRAME):
            self._ratios.append(_ratios(*waiting[..., start : start + FRAME]))
        self._rest = waiting[..., whole:]

    def finish(self) -> dict[str, StemFigures]:
        """Stem → its figures over everything that was added. A track of less than a second is one "second"."""
        if not self._ratios and self._rest.shape[-1]:
            self._ratios.append(_ratios(*self._rest))
        by_stem = zip(*self._ratios, strict=True) if self._ratios else [()] * len(self._stems)
        mdx = 10 * np.log10((self._signal + DELTA) / (self._error + DELTA))
        return {
            stem: StemFigures(tuple(seconds), float(of_track))
            for stem, seconds, of_track in zip(self._stems, by_stem, mdx, strict=True)
        }


def _ratios(truth: Audio, estimate: Audio) -> list[float]:
    """The ratio of each stem in one second; ``truth`` and ``estimate`` are ``(stems, 2, frames)``."""
    # museval adds up the channels to find silence, so a stem in antiphase is silent too.
    if any((~each.sum(axis=1).any(axis=-1)).any() for each in (truth, estimate)):
        return [math.nan] * len(truth)
    signal, error = _energies(truth), _energies(truth - estimate)
    return [math.inf if e == 0 else 10 * math.log10(s / e) for s, e in zip(signal, error, strict=True)]


def _energies(stems: Audio) -> NDArray[np.float64]:
    return np.einsum("scn,scn->s", stems, stems)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one stem over all tracks, in dB; None if no track has one."""

    v4_median: float | None  # of the tracks' medians over seconds, as in SiSEC
    v4_mean: float | None
    mdx_median: float | None
    mdx_mean: float | None  # as in the MDX challenge


def summarize(tracks: Sequence[Mapping[str, StemFigures]]) -> dict[str, Summary]:
    """Stem → its summary; the stems of the first track, in its order."""
    found: dict[str, Summary] = {}
    for stem in tracks[0] if tracks else ():
        v4 = [ratio for track in tracks if (ratio := track[stem].v4) is not None]
        mdx = [track[stem].mdx for track in tracks]
        found[stem] = Summary(_median(v4), _mean(v4), _median(mdx), _mean(mdx))
    return found


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
