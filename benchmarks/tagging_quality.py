"""Precision, recall, F1 and average precision of the instruments predicted for songs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = Mapping[str, frozenset[str]]  # file → its instruments, with the vocabulary's names
Scores = Mapping[str, Mapping[str, float | None]]  # file → instrument → score; None: no score


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of the predictions for one instrument, or for all of them."""

    precision: float
    recall: float
    f1: float
    average_precision: float | None  # None if the tagger gives no scores
    support: int  # number of files with the instrument


def average_precision(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct scores from the highest down, without interpolation.

    As scikit-learn defines it (``sklearn.metrics.average_precision_score``). ``truth`` has at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # files with equal scores pass a threshold together
    found = np.cumsum(truth[order])[last]
    precision = found / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / truth.sum())


def judge(truth: NDArray[np.bool_], scores: NDArray[np.float64], threshold: float, scored: bool) -> Quality:
    """The quality of predictions; both arrays have one shape, and ``truth`` has at least one True."""
    predicted = scores >= threshold
    hits = int((truth & predicted).sum())
    support, found = int(truth.sum()), int(predicted.sum())
    return Quality(
        precision=hits / found if found else 0.0,
        recall=hits / support,
        f1=2 * hits / (support + found),
        average_precision=average_precision(truth.ravel(), scores.ravel()) if scored else None,
        support=support,
    )


def evaluate(labels: Labels, scores: Scores, threshold: float) -> dict[str, Quality]:
    """The quality for each instrument in the labels, then their "macro" and "micro" averages."""
    instruments = sorted(set().union(*labels.values()))
    given = [score for found in scores.values() for score in found.values()]
    scored = None not in given
    if not scored:  # every named instrument is predicted, for any threshold
        threshold = 1.0
    truth = np.array([[name in labels[file] for name in instruments] for file in labels])
    values = np.array([[_value(scores[file], name) for name in instruments] for file in labels])
    table = {
        name: judge(truth[:, column], values[:, column], threshold, scored)
        for column, name in enumerate(instruments)
    }
    rows = list(table.values())
    aps = [row.average_precision for row in rows if row.average_precision is not None]
    macro = Quality(
        precision=float(np.mean([row.precision for row in rows])),
        recall=float(np.mean([row.recall for row in rows])),
        f1=float(np.mean([row.f1 for row in rows])),
        average_precision=float(np.mean(aps)) if aps else None,
        support=int(truth.sum()),
    )
    return table | {"macro": macro, "micro": judge(truth, values, threshold, scored)}


def _value(found: Mapping[str, float | None], instrument: str) -> float:
    score = found.get(instrument, 0.0)
    return 1.0 if score is None else score


def print_table(table: Mapping[str, Quality]) -> None:
    """Print a line for each instrument, then the averages."""
    width = max(len(name) for name in table) + 2
    print(f"{'':{width}}{'precision':>10}{'recall':>10}{'F1':>10}{'AP':>10}{'files':>8}")
    for name, row in table.items():
        ap = "-" if row.average_precision is None else f"{row.average_precision:.3f}"
        print(f"{name:{width}}{row.precision:10.3f}{row.recall:10.3f}{row.f1:10.3f}{ap:>10}{row.support:8}")
