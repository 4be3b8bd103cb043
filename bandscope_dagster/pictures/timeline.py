"""The instruments of a song over time, from its tag rows: which are present, when, with which score."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MOST_INSTRUMENTS: Final = 12  # most rows of a timeline
LEVELS: Final = 5  # steps of a score that an eye can distinguish in one hue
DRAWN: Final = ("instrument", "score", "start_s", "end_s")  # columns of a tag table that a timeline reads


@dataclass(frozen=True, slots=True)
class Timeline:
    """The instruments in a song, the most present first, at most ``MOST_INSTRUMENTS``."""

    levels: Mapping[str, NDArray[np.uint8]]  # instrument → (parts,): 0 if it is absent, else 1 … LEVELS
    instruments: int  # all that are present, also beyond ``MOST_INSTRUMENTS``
    scores: tuple[float, float] | None  # lower bound of level 1, upper bound of LEVELS; None without scores


def timeline(rows: Iterable[Mapping[str, Any]], present_from: float, seconds: float, parts: int) -> Timeline:
    """The level of each instrument in each of ``parts`` equal parts of a song of ``seconds``.

    ``rows`` are those of a tag table. An instrument is present in windows in which its score is at least
    ``present_from``, or in which the tagger names it without a score. The level grows with the score, from
    ``present_from`` to the highest score in the song. If windows overlap, the higher score counts.
    """
    present: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["instrument"] is not None and (row["score"] is None or row["score"] >= present_from):
            present[row["instrument"]].append(row)
    most = sorted(present, key=lambda name: (-_weight(present[name]), name))[:MOST_INSTRUMENTS]

    scores = [row["score"] for name in most for row in present[name] if row["score"] is not None]
    highest = max(scores, default=present_from)
    return Timeline(
        levels={name: _levels(present[name], (present_from, highest), seconds, parts) for name in most},
        instruments=len(present),
        scores=(present_from, highest) if scores else None,
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
