"""Figures and pictures: how well the tagger does on phrases, mixtures and recordings that it never saw."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.tagging.instruments_bounds import ClassBounds
from bandscope_dagster.tagging.instruments_network import CLASSES
from benchmarks.tagging_quality import average_precision
from training.calibration import Floats, Rule, Windows, calibrated, pooled

DRAWS: Final = 1000  # of the bootstrap


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


def probabilities(windows: Windows, calibration: Mapping[str, ClassBounds]) -> Floats:
    """``(windows, classes)``."""
    each = [calibration[name] for name in CLASSES]
    scales, rivals, offsets = np.array([(one.scale, one.rivals, one.offset) for one in each]).T
    return calibrated(windows.logits, scales, rivals, offsets)


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
    windows: Mapping[str, Windows], calibration: Mapping[str, ClassBounds], rules: Sequence[Rule]
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


FONT: Final = 'font-family="sans-serif" font-size="11"'
BLUE: Final = (31, 95, 160)  # of a share of 1; a share of 0 is white


def _colour(share: float) -> str:
    return "#" + "".join(f"{round(255 + (full - 255) * share):02x}" for full in BLUE)


def _svg(width: int, height: int) -> str:
    """The opening of a picture of this size in pixels; a narrower page makes it smaller."""
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>'


def draw_confusion(path: Path, rows: Sequence[str], counts: NDArray[np.float64]) -> None:
    """A matrix as SVG: what plays in each row, which class has the highest score in each column."""
    cell, left, top = 20, 110, 110
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    width, height = left + cell * len(CLASSES) + 10, top + cell * len(rows) + 30
    parts = [_svg(width, height)]
    parts.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    for column, name in enumerate(CLASSES):
        x, y = left + cell * column + 14, top - 5
        parts.append(f'<text transform="translate({x} {y}) rotate(-60)">{name}</text>')
    for row, name in enumerate(rows):
        y = top + cell * row
        parts.append(f'<text x="{left - 6}" y="{y + 14}" text-anchor="end">{name}</text>')
        for column, share in enumerate(shares[row]):
            x = left + cell * column
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="{_colour(share)}" stroke="#ddd"/>'
            )
            if counts[row, column]:
                ink = "white" if share > 0.5 else "black"
                number = f"{counts[row, column]:.0f}"
                parts.append(
                    f'<text x="{x + 10}" y="{y + 14}" text-anchor="middle" fill="{ink}">{number}</text>'
                )
    parts.append(
        f'<text x="{left}" y="{height - 8}">rows: what plays; columns: the class with the highest score</text>'
    )
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def draw_reliability(path: Path, parts: Mapping[str, tuple[Floats, NDArray[np.bool_]]]) -> None:
    """How often a class is heard at each probability, as SVG, one line a set."""
    size, left, top = 300, 60, 20
    width, height = left + size + 20, top + size + 90
    inks = ("#1f5fa0", "#c2571a", "#2c7a4b")

    def at(probability: float, share: float) -> str:
        return f"{left + size * probability:.1f},{top + size * (1 - share):.1f}"

    lines = [_svg(width, height)]
    lines.append(f'<rect width="{width}" height="{height}" fill="white"/>')
    lines.append(f'<rect x="{left}" y="{top}" width="{size}" height="{size}" fill="none" stroke="#999"/>')
    lines.append(f'<polyline points="{at(0, 0)} {at(1, 1)}" stroke="#bbb" stroke-dasharray="4" fill="none"/>')
    for tick in (0, 0.25, 0.5, 0.75, 1):
        lines.append(
            f'<text x="{left + size * tick}" y="{top + size + 15}" text-anchor="middle">{tick:g}</text>'
        )
        lines.append(
            f'<text x="{left - 6}" y="{top + size * (1 - tick) + 4}" text-anchor="end">{tick:g}</text>'
        )
    middle = top + size / 2
    lines.append(f'<text x="{left + size / 2}" y="{top + size + 32}" text-anchor="middle">probability</text>')
    lines.append(
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">share that plays</text>'
    )
    for order, (name, (probability, truth)) in enumerate(parts.items()):
        number = np.minimum((probability * 10).astype(int), 9)
        filled = [one for one in range(10) if (number == one).sum() >= 10]
        points = " ".join(
            at(probability[number == one].mean(), truth[number == one].mean()) for one in filled
        )
        ink, y = inks[order % len(inks)], top + size + 52 + 16 * order
        lines.append(f'<polyline points="{points}" stroke="{ink}" stroke-width="2" fill="none"/>')
        error = expected_calibration_error(probability, truth)
        lines.append(
            f'<text x="{left}" y="{y}" fill="{ink}">{name} (expected calibration error {error:.3f})</text>'
        )
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write figures as JSON, rounded to four digits."""
    path.write_text(json.dumps(values, indent=2, default=lambda value: round(float(value), 4)) + "\n")
