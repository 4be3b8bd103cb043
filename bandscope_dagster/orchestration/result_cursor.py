"""The cursor of a reader of results: its positions in Dagster's event log, as a short text.

Dagster numbers its events. With SQLite, an event becomes visible before any event with a higher number. With
PostgreSQL, two processes may store their events in another order than that of the numbers, so that an event appears
below the last one that was read. There, the recent past is read again, and a cursor also has the numbers that were read
in it.

The end of a failed run is one event, and each of its failed songs is a result. A cursor between two of them also has
the number of the songs that were read.
"""

import math
import re
import time
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Self

from bandscope_dagster.errors import BandscopeError

LOOK_BACK_S: Final = 120.0
"""How far events may be out of order, in PostgreSQL. A number is taken and its event is visible within one statement,
which takes milliseconds; the rest is for a database that hangs, and for clocks that differ."""

_POSITION: Final = r"\d{1,18}(?:\+\d{1,18})*"
_PART: Final = r"\d{1,18}-\d{1,18}"
_TEXT: Final = re.compile(rf"({_POSITION})\.({_POSITION})(?:\.({_PART}))?", re.ASCII)


class CursorError(BandscopeError):
    """A text is no cursor, or is one of other records; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Position:
    """The events of one kind that were read."""

    settled: int = 0  # all events up to this number
    seen: tuple[int, ...] = ()  # and these above it, in ascending order

    def __str__(self) -> str:
        """``settled``, and for each number of ``seen`` the step from the number before it: ``120+3+1``."""
        numbers = (self.settled, *self.seen)
        steps = (after - before for before, after in zip(numbers, self.seen, strict=False))
        return "+".join([str(self.settled), *map(str, steps)])

    @classmethod
    def parse(cls, text: str) -> Self:
        """The position of such a text."""
        settled, *seen = accumulate(int(step) for step in text.split("+"))
        return cls(settled, tuple(seen))

    @property
    def last(self) -> int:
        """The highest number that was read."""
        return self.seen[-1] if self.seen else self.settled


@dataclass(frozen=True, slots=True)
class Part:
    """A failed run of which some failed songs were read, and some not yet."""

    event: int  # that ended the run; it is not in ``Cursor.failed`` yet
    songs: int  # that were read: the first ones, in ascending order

    def __str__(self) -> str:
        """For example ``5112-3``."""
        return f"{self.event}-{self.songs}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The part of such a text."""
        event, songs = text.split("-")
        return cls(int(event), int(songs))


@dataclass(frozen=True, slots=True)
class Cursor:
    """The results that were read: those of finished songs, and those of failed runs."""

    finished: Position = Position()
    failed: Position = Position()
    part: Part | None = None  # of one run at most: it is read to its end before the next one

    def __str__(self) -> str:
        """For example ``5120.5107``, or ``5120.5107.5112-3`` in the middle of a run's failed songs."""
        return f"{self.finished}.{self.failed}" + (f".{self.part}" if self.part else "")

    @property
    def last_failed(self) -> int:
        """The highest number of a failed run's event that was read, perhaps in part."""
        return max(self.failed.last, self.part.event if self.part else 0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor of such a text.

        Raises:
            CursorError: the text is no cursor.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise CursorError(
                f"{text!r} is no cursor. Take one from a line of `bandscope results`, such as 5120.5107, or leave it"
                " out."
            )
        part = Part.parse(found[3]) if found[3] else None
        return cls(Position.parse(found[1]), Position.parse(found[2]), part)


class Progress:
    """A position that can move on. It does not change: ``after`` returns another one."""

    def __init__(self, position: Position, *, in_order: bool) -> None:
        """``in_order``: no event becomes visible after one with a higher number."""
        self._settled = position.settled
        self._in_order = in_order
        self._seen = dict.fromkeys(
            position.seen, math.inf
        )  # number → time (seconds since 1970); inf: not known

    @property
    def position(self) -> Position:
        """All that was read."""
        return Position(self._settled, tuple(sorted(self._seen)))

    def is_new(self, number: int) -> bool:
        """True if the event with this number was not read yet."""
        return number > self._settled and number not in self._seen

    def after(self, number: int, at: float, *, again: bool = True) -> "Progress":
        """The position after an event with this number, stored at a time (seconds since 1970), was read.

        ``again``: it does no harm to read the event again, so that its number need not be kept.
        """
        # An event that is old enough has no event before it that is still invisible.
        until = math.inf if self._in_order else time.time() - LOOK_BACK_S
        if again and at > until and self._seen.get(number, at) == at:
            return self
        moved = Progress(Position(), in_order=self._in_order)
        seen = self._seen | ({number: at} if not again or number in self._seen else {})
        settled = [known for known, stored in seen.items() if stored <= until]
        moved._settled = max(self._settled, *settled, number if at <= until else 0)
        moved._seen = {known: stored for known, stored in seen.items() if known > moved._settled}
        return moved
