"""Precision, recall, F1 and average precision of the instruments found in songs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = Mapping[str, Mapping[str, bool]]
"""File → instrument, by its name in the vocabulary → True if it is in the file. Other pairs are not judged."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A tagger's verdict on one instrument in one file."""

    present: bool
    score: float | None  # None if the tagger has no scores


Verdicts = Mapping[
    str, Mapping[str, Verdict]
]  # file → instrument → verdict; absent with score 0 if there is none


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of the verdicts on one instrument, or on all of them."""

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


def judge(truth: NDArray[np.bool_], found: NDArray[np.bool_], scores: NDArray[np.float64] | None) -> Quality:
    """The quality of verdicts; the arrays have one shape, ``(files,)``, and ``truth`` has at least one True."""
    hits = int((truth & found).sum())
    support, positives = int(truth.sum()), int(found.sum())
    return Quality(
        precision=hits / positives if positives else 0.0,
        recall=hits / support,
        f1=2 * hits / (support + positives),
        average_precision=None if scores is None else average_precision(truth, scores),
        support=support,
    )


def evaluate(labels: Labels, verdicts: Verdicts, kinds: Mapping[str, frozenset[str]]) -> dict[str, Quality]:
    """The quality for each instrument that is in any file, then their "macro" and "micro" averages.

    ``kinds`` has the instruments that count as one of a general name: "guitar" → "acoustic guitar" and others.
    """
    names = sorted({name for judged in labels.values() for name, is_in in judged.items() if is_in})
    scored = all(verdict.score is not None for found in verdicts.values() for verdict in found.values())
    table: dict[str, Quality] = {}
    pooled: list[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]] = []
    for name in names:
        files = [file for file, judged in labels.items() if name in judged]
        best = [_best(verdicts[file], kinds.get(name, frozenset()) | {name}) for file in files]
        truth = np.array([labels[file][name] for file in files])
        found = np.array([verdict.present for verdict in best])
        scores = np.array([verdict.score or 0.0 for verdict in best])
        table[name] = judge(truth, found, scores if scored else None)
        pooled.append((truth, found, scores))
    rows = list(table.values())
    aps = [row.average_precision for row in rows if row.average_precision is not None]
    macro = Quality(
        precision=float(np.mean([row.precision for row in rows])),
        recall=float(np.mean([row.recall for row in rows])),
        f1=float(np.mean([row.f1 for row in rows])),
        average_precision=float(np.mean(aps)) if aps else None,
        support=sum(row.support for row in rows),
    )
    truth, found, scores = (np.concatenate(each) for each in zip(*pooled, strict=True))
    return table | {"macro": macro, "micro": judge(truth, found, scores if scored else None)}


def _best(found: Mapping[str, Verdict], instruments: frozenset[str]) -> Verdict:
    """One verdict for all ``instruments``: present if any of them is, with the highest of their scores."""
    own = [found[name] for name in instruments if name in found]
    return Verdict(
        present=any(verdict.present for verdict in own),
        score=max((verdict.score or 0.0 for verdict in own), default=0.0),
    )


def print_table(table: Mapping[str, Quality]) -> None:
    """Print a line for each instrument, then the averages."""
    width = max(len(name) for name in table) + 2
    print(f"{'':{width}}{'precision':>10}{'recall':>10}{'F1':>10}{'AP':>10}{'files':>8}")
    for name, row in table.items():
        ap = "-" if row.average_precision is None else f"{row.average_precision:.3f}"
        print(f"{name:{width}}{row.precision:10.3f}{row.recall:10.3f}{row.f1:10.3f}{ap:>10}{row.support:8}")
