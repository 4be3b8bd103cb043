"""The checks of a song: one rule each, used by Dagster's checks and by pages."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bandscope_dagster.errors import is_failure
from bandscope_dagster.separation.quality import SeparationQuality
from bandscope_dagster.tagging.summary import UNMAPPED_LIMIT

CLIPPED_LIMIT: Final = 0.001
"""The share of clipped samples that triggers a warning: 44 a second, enough to change levels and stems audibly."""


class Outcome(StrEnum):
    """The result of a check."""

    PASSED = "passed"
    WARNED = "warned"  # a property of the data that people should know
    FAILED = "failed"  # Bandscope broke a promise


@dataclass(frozen=True, slots=True)
class Check:
    """A check of one song and its result."""

    outcome: Outcome
    problems: tuple[str, ...] = ()  # sentences; empty if the check passed

    @property
    def passed(self) -> bool:
        """True if the check found no problem."""
        return self.outcome is Outcome.PASSED

    @property
    def description(self) -> str | None:
        """The problems as one text; None if there are none."""
        return "; ".join(self.problems) or None


def song_is_usable(error: str | None) -> Check:
    """Check that the upload is complete audio within the limits, by its ``error`` in ``songs``.

    A failure of ours fails the check. A rejection only warns, because it is a property of the upload.
    """
    if error is None:
        return Check(Outcome.PASSED)
    return Check(Outcome.FAILED if is_failure(error) else Outcome.WARNED, (error,))


def song_is_undamaged(warning: str | None) -> Check:
    """Check that the song is all the audio of its upload, without doubt, by its ``warning`` in ``songs``."""
    return _warn_of([] if warning is None else [warning])


def song_is_not_clipped(clipped_share: float) -> Check:
    """Check that less than ``CLIPPED_LIMIT`` of the samples are at or beyond full scale."""
    return _warn_of(
        [f"{clipped_share:.2%} of the samples are clipped"] if clipped_share >= CLIPPED_LIMIT else []
    )


def blocks_are_whole(faults: list[str]) -> Check:
    """Check that the stored file keeps the promises of its table; ``faults`` are the broken ones."""
    return Check(Outcome.FAILED, tuple(faults)) if faults else Check(Outcome.PASSED)


def stems_sum_to_mixture(quality: SeparationQuality) -> Check:
    """Check that the stems add up to the mixture; there is nothing to check if only some stems are stored."""
    if quality.residual_db is None:
        stems = ", ".join(stem.stem for stem in quality.stems)
        return Check(Outcome.PASSED, (f"nothing to check: only some stems were computed ({stems})",))
    return _warn_of(
        [] if quality.sums_to_mixture else [f"the residual is {quality.residual_db:.1f} dB of the mixture"]
    )


def tags_are_complete(windows: int, lost: int, labels: int, unmapped: int) -> Check:
    """Check that every window that is not silent has tags, and that the vocabulary knows the model's labels.

    Args:
        windows: number of tagged windows.
        lost: number of these windows with an error instead of tags.
        labels: number of tags.
        unmapped: number of these tags whose label is not in the vocabulary.
    """
    problems: list[str] = []
    if lost:
        problems.append(f"{lost} of {windows} windows have an error instead of tags")
    if labels and unmapped / labels >= UNMAPPED_LIMIT:
        problems.append(f"the vocabulary does not know {unmapped} of {labels} labels")
    return _warn_of(problems)


def _warn_of(problems: list[str]) -> Check:
    return Check(Outcome.WARNED if problems else Outcome.PASSED, tuple(problems))
