"""The time between two listings of the uploads: short where a listing is cheap, long where there are very many."""

from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import Final

PAUSES: Final = 20.0
"""A pause lasts so many times as long as the listing before it: listings take at most a twentieth of the time."""


def pause_after(seconds: float) -> float:
    """The shortest pause, in seconds, after a listing that took ``seconds``."""
    return PAUSES * seconds


class ListingPace:
    """Says when the next listing is due, for a process that stays."""

    def __init__(self, every_s: float) -> None:
        """Listings are due every ``every_s`` seconds, unless they are expensive."""
        self._every_s = every_s
        self._due = self._not_before = monotonic()

    @property
    def due_in(self) -> float:
        """Seconds until the next listing is due; 0 if it is due now."""
        return max(0.0, max(self._due, self._not_before) - monotonic())

    @contextmanager
    def measured(self) -> Generator[None]:
        """Make a listing in the block."""
        began = monotonic()
        try:
            yield
        finally:
            ended = monotonic()
            self._not_before = ended + pause_after(ended - began)
            self._due = ended + self._every_s

    def hurry(self, within_s: float = 0.0) -> None:
        """List again within this time, or as soon as the pause is over: something may have changed."""
        self._due = min(self._due, monotonic() + within_s)

    def rest(self, seconds: float) -> None:
        """List nothing for at least this time."""
        self._not_before = max(self._not_before, monotonic() + seconds)
