"""Figures and pictures: how well the tagger does on phrases, mixtures and recordings that it never saw."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bandscope_dagster.tagging.instruments_network import CLASSES
from benchmarks.tagging_quality import average_precision
from training.calibration import Calibration, Floats, Rule, Windows, pooled

DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one set of pieces; the intervals are the bootstrap's 95 %."""

    micro_f1: float
    micro_f1_interval: tuple[float, float]
    top_1: float
    top_1_interval: tuple[float, float]
    mean_ap: float
    mean_ap_interval: tuple[float, float]
    precision: float
    recall: float


def probabilities(windows: Windows, calibration: Mapping[str, Calibration]) -> Floats:
    """``(windows, classes)``."""
    scale = np.array([calibration[name].scale for name in CLASSES])
    offset = np.array([calibration[name].offset for name in CLASSES])
    return expit(scale * windows.logits + offset)


def judged(scores: Floats, truth: NDArray[np.bool_], bounds: Floats, seed: int = 1) -> Figures:
    """The figures of ``(pieces, classes)`` scores. Every class's false tags count in the micro-averages.

    "Top 1" is the share of pieces whose highest score is of a class that plays. The mean of average precision is over
    the classes that play in any piece.
    """

    def once(chosen: NDArray[np.int64]) -> tuple[float, float, float]:
        picked, right = scores[chosen], truth[chosen]
        present = picked >= bounds
        hits = (present & right).sum()
        playing = np.flatnonzero(right.any(0))
        precisions = [average_precision(right[:, column], picked[:, column]) for column in playing]
        top = right[np.arange(len(right)), picked.argmax(1)].mean()
        return 2 * hits / (present.sum() + right.sum()), float(top), float(np.mean(precisions))

    rng = np.random.default_rng(seed)
    draws = np.array([once(rng.integers(len(truth), size=len(truth))) for _ in range(DRAWS)])
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    f1, top, mean_ap = once(np.arange(len(truth)))
    present = scores >= bounds
    hits = (present & truth).sum()
    return Figures(
        f1, (low[0], high[0]), top, (low[1], high[1]), mean_ap, (low[2], high[2]),
        hits / max(1, present.sum()), hits / truth.sum(),
    )  # fmt: skip


def class_table(
    scores: Floats, truth: NDArray[np.bool_], bounds: Floats
) -> list[tuple[str, int, float, float, float, float]]:
    """Per class: pieces with it, precision, recall, F1, average precision; NaN where there are none."""
    rows: list[tuple[str, int, float, float, float, float]] = []
    present = scores >= bounds
    for column, name in enumerate(CLASSES):
        right, found = truth[:, column], present[:, column]
        hits, support = (right & found).sum(), int(right.sum())
        precision = hits / found.sum() if found.sum() else float("nan")
        recall = hits / support if support else float("nan")
        f1 = 2 * hits / (found.sum() + support) if support + found.sum() else float("nan")
        ap = average_precision(right, scores[:, column]) if support else float("nan")
        rows.append((name, support, precision, recall, f1, ap))
    return rows


def expected_calibration_error(probability: Floats, truth: NDArray[np.bool_], bins: int = 15) -> float:
    """The mean distance of probability and frequency over equal bins, weighted by their size (Guo et al., 2017)."""
    number = np.minimum((probability * bins).astype(int), bins - 1)
    total = 0.0
    for one in range(bins):
        inside = number == one
        if inside.any():
            total += inside.sum() * abs(probability[inside].mean() - truth[inside].mean())
    return total / probability.size


def rules_compared(
    windows: Mapping[str, Windows], calibration: Mapping[str, Calibration], rules: Sequence[Rule]
) -> list[tuple[str, str, float, float]]:
    """Per rule and set: the mean average precision, and the best micro-F1 of one bound for all classes."""
    rows: list[tuple[str, str, float, float]] = []
    for rule in rules:
        for name, part in windows.items():
            scores = pooled(probabilities(part, calibration), part.pieces, part.count, rule)
            truth = part.truth_of_pieces()
            playing = np.flatnonzero(truth.any(0))
            mean_ap = float(np.mean([average_precision(truth[:, c], scores[:, c]) for c in playing]))
            grid = np.linspace(0.02, 0.98, 97)
            f1 = max(2 * ((scores >= t) & truth).sum() / ((scores >= t).sum() + truth.sum()) for t in grid)
            rows.append((rule, name, mean_ap, float(f1)))
    return rows


def draw_confusion(path: Path, rows: Sequence[str], counts: NDArray[np.float64], title: str) -> None:
    """A matrix as a picture: what plays in each row, which class has the highest score in each column."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(11, 0.34 * len(rows) + 3), layout="constrained")
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=90)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("class with the highest score")
    axes.set_ylabel("what plays")
    axes.set_title(title)
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = shares[row, column] > 0.5
        axes.text(
            column,
            row,
            f"{counts[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_reliability(path: Path, parts: Mapping[str, tuple[Floats, NDArray[np.bool_]]]) -> None:
    """How often a class is heard at each probability, one line a set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.2, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="perfect")
    edges = np.linspace(0, 1, 11)
    for name, (probability, truth) in parts.items():
        number = np.minimum((probability * 10).astype(int), 9)
        filled = [one for one in range(10) if (number == one).sum() >= 10]
        error = expected_calibration_error(probability, truth)
        axes.plot(
            [probability[number == one].mean() for one in filled],
            [truth[number == one].mean() for one in filled],
            marker="o",
            label=f"{name} (expected calibration error {error:.3f})",
        )
    axes.set_xticks(edges[::2])
    axes.set_yticks(edges[::2])
    axes.set_xlabel("probability of a class in a window")
    axes.set_ylabel("share of these windows in which it plays")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write figures as JSON, rounded to four digits."""
    path.write_text(json.dumps(values, indent=2, default=lambda value: round(float(value), 4)) + "\n")
