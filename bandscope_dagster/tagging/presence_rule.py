"""The rule by which an instrument counts as present: each tagger has its own, because scores differ in meaning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PresenceRule:
    """The rule of one tagger; ``songs.presence`` applies it.

    An instrument is present in the windows in which its score reaches the bound of the label that has the score. If
    there is a ``best_share``, it must first be present in the source as a whole: the mean score over this share of
    all its tagged windows, the best ones and at least ``fewest``, must reach the bound. So one stray window is not
    enough.
    """

    bound: float  # lowest score of the labels that have no bound of their own
    bounds: Mapping[str, float] = field(
        default_factory=dict[str, float]
    )  # label of the tagger → lowest score
    best_share: float | None = None  # in (0, 1]; None: every window is judged alone
    fewest: int = 1  # windows that are judged together, if the source has so many


PresentFrom: TypeAlias = Mapping[str | None, PresenceRule]
"""Tagger → its rule; None → the rule of all other taggers.

If the tagger has no scores, every instrument that it names is present.
"""
