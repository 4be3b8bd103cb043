"""Turn logits into probabilities, and choose the probability from which an instrument counts as present."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from bandscope_dagster.tagging.instruments_network import CLASSES

Rule = Literal["mean", "best quarter", "noisy-or", "maximum"]
Floats = NDArray[np.float64]

PRIOR: Final = 3.0
"""Strength of the pull towards equal weights and no change, as a number of windows."""

REAL_SHARE: Final = 0.5  # of the weight in the fit that windows of real notes have, where there are any
LOWEST_BOUND, HIGHEST_BOUND = 0.05, 0.95
MOST_FALSE: Final = 0.005  # of recordings of other instruments in which a class may be present


def pooled(
    probabilities: Floats, pieces: NDArray[np.int64], count: int, rule: Rule = "best quarter"
) -> Floats:
    """Window probabilities ``(windows, classes)`` → ``(count, classes)`` of the pieces; 0 for one without windows."""
    result = np.zeros((count, probabilities.shape[1]))
    for piece in np.unique(pieces):
        windows = probabilities[pieces == piece]
        if rule == "mean":
            result[piece] = windows.mean(0)
        elif rule == "maximum":
            result[piece] = windows.max(0)
        elif rule == "noisy-or":
            result[piece] = 1 - np.prod(1 - windows, 0)
        else:
            best = -(-len(windows) // 4)
            result[piece] = np.sort(windows, 0)[-best:].mean(0)
    return result


def fit_logistic(inputs: Floats, truth: NDArray[np.bool_], weights: Floats, start: Sequence[float]) -> Floats:
    """Non-negative weights of ``inputs (windows, n)`` and an offset, by regularised maximum likelihood."""
    begin = np.array(start)

    def loss(values: Floats) -> tuple[float, Floats]:
        logits = inputs @ values[:-1] + values[-1]
        error = weights * (expit(logits) - truth)
        away = values - begin
        away[-1] = 0
        total = np.sum(weights * (np.logaddexp(0, logits) - truth * logits)) + PRIOR * np.sum(away**2)
        return float(total), np.append(inputs.T @ error, error.sum()) + 2 * PRIOR * away

    bounds = [(0.0, 5.0)] * inputs.shape[1] + [(-12.0, 12.0)]
    return minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds).x


def fit_branches(trunk: Floats, ear: Floats, truth: NDArray[np.bool_]) -> Floats:
    """``(2, classes)``: the weights of both branches' logits, fitted on rendered windows."""
    even = np.ones(len(truth))
    fitted = [
        fit_logistic(
            np.stack([trunk[:, column], ear[:, column]], 1), truth[:, column], even, (0.5, 0.5, 0.0)
        )[:2]
        for column in range(len(CLASSES))
    ]
    return np.array(fitted).T


@dataclass(frozen=True, slots=True)
class Windows:
    """Logits of windows, ``(windows, classes)``, what is heard in each, and the piece that each belongs to."""

    logits: Floats
    truth: NDArray[np.bool_]  # (windows, classes)
    pieces: NDArray[np.int64]
    names: Sequence[str] = ()  # of the pieces

    @property
    def count(self) -> int:
        """The number of pieces."""
        return int(self.pieces.max(initial=-1)) + 1

    def truth_of_pieces(self) -> NDArray[np.bool_]:
        """``(pieces, classes)``."""
        result = np.zeros((self.count, self.truth.shape[1]), bool)
        np.logical_or.at(result, self.pieces, self.truth)
        return result


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one class: probability = sigmoid(scale × logit + offset), and the bound of presence."""

    scale: float
    offset: float
    present_from: float
    chosen_on: str


def calibrate(rendered: Windows, real: Sequence[Windows]) -> dict[str, Calibration]:
    """The calibration of every class, from rendered windows and, where there are any, from phrases of real notes.

    A bound has the best F1 over pieces. That of a class with real notes is chosen on these alone. That of another is
    chosen on rendered pieces, and raised until at most ``MOST_FALSE`` of the real pieces have the class.
    """
    result: dict[str, Calibration] = {}
    logits = np.concatenate([rendered.logits, *(windows.logits for windows in real)])
    truth = np.concatenate([rendered.truth, *(windows.truth for windows in real)])
    count = sum(len(windows.logits) for windows in real)
    share = len(rendered.logits) / count * REAL_SHARE / (1 - REAL_SHARE) if count else 0.0
    weights = np.concatenate([np.ones(len(rendered.logits)), np.full(count, share)])
    for column, name in enumerate(CLASSES):
        scale, offset = fit_logistic(logits[:, [column]], truth[:, column], weights, (1.0, 0.0))

        def scores(
            windows: Windows, scale: float = scale, offset: float = offset, column: int = column
        ) -> Floats:
            probabilities = expit(scale * windows.logits[:, [column]] + offset)
            return pooled(probabilities, windows.pieces, windows.count)[:, 0]

        found = [scores(windows) for windows in real]
        wanted = [windows.truth_of_pieces()[:, column] for windows in real]
        if any(part.any() for part in wanted):
            bound = best_bound(np.concatenate(found), np.concatenate(wanted))
            chosen_on = "real notes"
        else:
            bound = best_bound(scores(rendered), rendered.truth_of_pieces()[:, column])
            chosen_on = "rendered audio"
            for part in found:
                bound = max(bound, float(np.quantile(part, 1 - MOST_FALSE)) + 1e-3)
        bound = float(np.clip(bound, LOWEST_BOUND, HIGHEST_BOUND))
        result[name] = Calibration(
            round(float(scale), 4), round(float(offset), 4), round(bound, 3), chosen_on
        )
    return result


def best_bound(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """The bound with the best F1, smoothed over bounds near it; among equals, the middle one."""
    grid = np.linspace(LOWEST_BOUND, HIGHEST_BOUND, 181)
    hits = np.array([(truth & (scores >= bound)).sum() for bound in grid])
    found = np.array([(scores >= bound).sum() for bound in grid])
    f1 = 2 * hits / np.maximum(found + truth.sum(), 1)
    smooth = np.convolve(np.pad(f1, 2, "edge"), np.ones(5) / 5, "valid")
    good = np.flatnonzero(smooth >= smooth.max() - 1e-9)
    return float(grid[good[len(good) // 2]])
