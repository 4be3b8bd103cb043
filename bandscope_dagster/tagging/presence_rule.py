"""The rule by which an instrument counts as present: each tagger has its own, because scores differ in meaning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

# Levels of the embedded separator's vocals in windows of 3 s, beside the mean level of the song, measured in drafts of
# the demo's songs and in the excerpt of the package stempeg: −10 to 0 dB where a voice sings; without one, −38 dB or
# below in 23 of 24 windows, and −20 dB in the other. A speech recording that had a "guitar" comes from a trial, and was
# not measured by us: 0.02 % of its energy was in the accompaniment, which is −37 dB as a whole.
AUDIBLE_DB: Final = -25.0
"""No instrument is present in a window of a stem that is softer than the song by more than this many dB."""
FAINT_DB: Final = -50.0  # the same for the mixture: fades, and hiss between takes


@dataclass(frozen=True, slots=True)
class PresenceRule:
    """The rule of one tagger; ``songs.presence`` applies it.

    An instrument is present in the windows in which its score reaches the bound of the label that has the score. If
    there is a ``best_share``, it must first be present in the source as a whole: the mean score over this share of
    all its tagged windows, the best ones and at least ``fewest``, must reach the bound. So one stray window is not
    enough. A window in which the source is hardly audible counts as one without any instrument: what a separator leaves
    in a stem that the song does not have is soft, and a tagger hears it as loud as everything else.
    """

    bound: float  # lowest score of the labels that have no bound of their own
    bounds: Mapping[str, float] = field(
        default_factory=dict[str, float]
    )  # label of the tagger → lowest score
    best_share: float | None = None  # in (0, 1]; None: every window is judged alone
    fewest: int = 1  # windows that are judged together, if the source has so many
    audible_db: float = AUDIBLE_DB  # lowest level of a stem's window, relative to the song's mean level

    @property
    def audible_in_mixture_db(self) -> float:
        """The same for a window of the mixture: a soft passage of a song is part of it, a stem's soft rest is not."""
        return min(self.audible_db, FAINT_DB)


PresentFrom: TypeAlias = Mapping[str | None, PresenceRule]
"""Tagger → its rule; None → the rule of all other taggers.

If the tagger has no scores, every instrument that it names is present.
"""
