"""Turn logits into probabilities, and choose the probability from which an instrument counts as present."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from bandscope_dagster.tagging.instruments_bounds import ClassBounds
from bandscope_dagster.tagging.instruments_network import CLASSES
from training.classes import AUDIOSET

Rule = Literal["mean", "best quarter", "noisy-or", "maximum"]
Floats = NDArray[np.float64]

PRIOR: Final = 3.0
"""Strength of the pull towards equal weights and no change, as a number of windows."""

REAL_SHARE: Final = 0.5  # of the weight in the fit that windows of real notes have, where there are any
FEWEST: Final = 3  # windows of "best quarter", if there are so many
LOWEST_BOUND, HIGHEST_BOUND = 0.05, 0.95
COMMON_SHARE: Final = 0.5
"""How far a class's bound is drawn from its own best towards the best common one, in log odds.

A few dozen notes of an instrument say little about where its own bound should be.
"""

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
            best = max(min(FEWEST, len(windows)), -(-len(windows) // 4))
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


def highest_other(logits: Floats) -> Floats:
    """``(windows, classes)``: for each class, the highest logit of the others."""
    order = np.sort(logits, 1)
    return np.where(logits == order[:, -1:], order[:, -2:-1], order[:, -1:])


def calibrated(logits: Floats, scales: Floats, rivals: Floats, offsets: Floats) -> Floats:
    """``(windows, classes)`` logits → probabilities."""
    return expit(scales * logits - rivals * highest_other(logits) + offsets)


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


def calibrate(rendered: Windows, real: Sequence[Windows]) -> dict[str, ClassBounds]:
    """The calibration of every class, from rendered windows and, where there are any, from phrases of real notes.

    The bounds of the classes with real notes give the best micro-F1 on these, as the mean over the sets in ``real``.
    The bound of another class has the best F1 on rendered pieces, and is raised until at most ``MOST_FALSE`` of the
    real pieces have the class.
    """
    logits = np.concatenate([rendered.logits, *(windows.logits for windows in real)])
    truth = np.concatenate([rendered.truth, *(windows.truth for windows in real)])
    count = sum(len(windows.logits) for windows in real)
    share = len(rendered.logits) / count * REAL_SHARE / (1 - REAL_SHARE) if count else 0.0
    weights = np.concatenate([np.ones(len(rendered.logits)), np.full(count, share)])
    others = highest_other(logits)
    fitted = np.array(
        [
            fit_logistic(np.stack([logits[:, c], -others[:, c]], 1), truth[:, c], weights, (1.0, 0.0, 0.0))
            for c in range(len(CLASSES))
        ]
    )

    def scores(windows: Windows) -> Floats:
        return pooled(calibrated(windows.logits, *fitted.T), windows.pieces, windows.count)

    sets = [(scores(windows), windows.truth_of_pieces()) for windows in real]
    with_notes = sorted({column for _, right in sets for column in np.flatnonzero(right.any(0))})
    without = [column for column in range(len(CLASSES)) if column not in with_notes]
    on_rendered, right = scores(rendered), rendered.truth_of_pieces()
    bounds = np.array(
        [best_bound(on_rendered[:, column], right[:, column]) for column in range(len(CLASSES))]
    )
    for found, _ in sets:
        bounds[without] = np.maximum(
            bounds[without], np.quantile(found[:, without], 1 - MOST_FALSE, axis=0) + 1e-3
        )
    bounds = np.clip(bounds, LOWEST_BOUND, HIGHEST_BOUND)
    if sets:
        bounds = best_bounds(sets, bounds, with_notes)
    return {
        name: ClassBounds(
            scale=round(float(fitted[column, 0]), 4),
            rivals=round(float(fitted[column, 1]), 4),
            offset=round(float(fitted[column, 2]), 4),
            present_from=round(float(bounds[column]), 3),
            chosen_on="real notes" if column in with_notes else "rendered audio",
            audioset=AUDIOSET.get(name),
        )
        for column, name in enumerate(CLASSES)
    }


def best_bounds(
    sets: Sequence[tuple[Floats, NDArray[np.bool_]]], bounds: Floats, columns: Sequence[int]
) -> Floats:
    """The bounds with those of ``columns`` chosen for the best mean of the sets' micro-F1.

    A set is ``(pieces, classes)`` scores and truth. First one bound for all, then one class after the other, then half
    way back (``COMMON_SHARE``). F1 is smoothed over neighbouring bounds, so that no bound lies just beside the score of
    one piece.
    """
    grid = np.linspace(LOWEST_BOUND, HIGHEST_BOUND, 181)
    bounds = bounds.copy()

    def with_common(bound: float) -> float:
        tried = bounds.copy()
        tried[columns] = bound
        present = [scores >= tried for scores, _ in sets]
        return sum(
            2 * (found & truth).sum() / (found.sum() + truth.sum())
            for found, (_, truth) in zip(present, sets, strict=True)
        )

    common = _smooth_maximum(np.array([with_common(bound) for bound in grid]), grid)
    bounds[columns] = common
    for _ in range(4):
        before = bounds.copy()
        for column in columns:
            f1 = np.zeros(len(grid))
            others = np.arange(len(bounds)) != column
            for scores, truth in sets:
                present = scores >= bounds
                hits = (present & truth)[:, others].sum() + _counts(scores[:, column][truth[:, column]], grid)
                found = present[:, others].sum() + _counts(scores[:, column], grid)
                f1 += 2 * hits / (found + truth.sum())
            bounds[column] = _smooth_maximum(f1, grid)
        if np.array_equal(before, bounds):
            break
    bounds[columns] = expit(COMMON_SHARE * logit(common) + (1 - COMMON_SHARE) * logit(bounds[columns]))
    return bounds


def _counts(scores: Floats, grid: Floats) -> Floats:
    """How many scores reach each bound."""
    return (scores[None] >= grid[:, None]).sum(1)


def _smooth_maximum(f1: Floats, grid: Floats) -> float:
    """The bound with the highest F1, smoothed; among equals, the middle one."""
    smooth = np.convolve(np.pad(f1, 4, "edge"), np.ones(9) / 9, "valid")
    good = np.flatnonzero(smooth >= smooth.max() - 1e-9)
    return float(grid[good[len(good) // 2]])


def best_bound(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """The bound with the best F1 of one class: ``(pieces,)`` scores and truth."""
    grid = np.linspace(LOWEST_BOUND, HIGHEST_BOUND, 181)
    f1 = 2 * _counts(scores[truth], grid) / np.maximum(_counts(scores, grid) + truth.sum(), 1)
    return _smooth_maximum(f1, grid)
