"""The instruments of a song over time, from the windows in which they are present, with their scores."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_INSTRUMENTS: Final = 12  # most rows of a timeline
LEVELS: Final = 5  # steps of a score that an eye can distinguish in one hue


@dataclass(frozen=True, slots=True)
class Timeline:
    """The instruments in a song, the most present first, at most ``MOST_INSTRUMENTS``."""

    levels: Mapping[str, NDArray[np.uint8]]  # instrument → (parts,): 0 if it is absent, else 1 … LEVELS
    instruments: int  # all that are present, also beyond ``MOST_INSTRUMENTS``
    scores: tuple[float, float] | None  # lower bound of level 1, upper bound of LEVELS; None without scores


def timeline(rows: Iterable[Mapping[str, Any]], seconds: float, parts: int) -> Timeline:
    """The level of each instrument in each of ``parts`` equal parts of a song of ``seconds``.

    ``rows`` are the windows in which each instrument is present (``songs.presence.present_windows``): instrument,
    score, bound, start_s and end_s; without a score, the tagger only names it. The level grows with the score, from
    the lowest bound to the highest score in the song. If windows overlap, the higher score counts.
    """
    present: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        present[row["instrument"]].append(row)
    most = sorted(present, key=lambda name: (-_weight(present[name]), name))[:MOST_INSTRUMENTS]

    scored = [row for name in most for row in present[name] if row["score"] is not None]
    lowest = min((row["bound"] for row in scored), default=0.0)
    highest = max((row["score"] for row in scored), default=0.0)
    return Timeline(
        levels={name: _levels(present[name], (lowest, highest), seconds, parts) for name in most},
        instruments=len(present),
        scores=(lowest, highest) if scored else None,
    )


def _weight(rows: Iterable[Mapping[str, Any]]) -> float:
    """The seconds of presence, weighted with the score."""
    return sum(
        (1.0 if row["score"] is None else row["score"]) * (row["end_s"] - row["start_s"]) for row in rows
    )


def _levels(
    rows: Iterable[Mapping[str, Any]], scores: tuple[float, float], seconds: float, parts: int
) -> NDArray[np.uint8]:
    """The highest level of one instrument's windows in each part."""
    lowest, highest = scores
    windows = np.array(
        [(highest if row["score"] is None else row["score"], row["start_s"], row["end_s"]) for row in rows]
    )
    share = (windows[:, 0] - lowest) / (highest - lowest) if highest > lowest else np.ones(len(windows))
    level_of = np.minimum(LEVELS, 1 + (share * LEVELS).astype(int))
    first = (windows[:, 1] / seconds * parts).astype(int)
    last = np.rint(windows[:, 2] / seconds * parts).astype(int)
    last = np.maximum(last, first + 1)  # a short window in a long song stays visible
    levels = np.zeros(parts, np.uint8)
    for level in range(1, LEVELS + 1):
        reached = level_of >= level
        begun = np.bincount(np.minimum(first[reached], parts), minlength=parts + 1)
        ended = np.bincount(np.minimum(last[reached], parts), minlength=parts + 1)
        levels += np.cumsum(begun - ended)[:parts] > 0
    return levels
