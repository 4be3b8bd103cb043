"""Values in the form that people read, and text from uploads without invisible characters."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from bandscope_dagster.pictures.labels import label

MINUS: Final = "\N{MINUS SIGN}"
EN_DASH: Final = "\N{EN DASH}"
CELLS: Final = 300  # most columns of one text from an upload; titles are shorter
TICKS: Final = 12  # at most, on the time axis
TICK_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


def visible(text: str, cells: int = CELLS) -> str:
    """One line without invisible characters: control characters, and marks that change the direction of writing."""
    return label(text, cells)


def clock(seconds: float) -> str:
    """A duration or position as in music players: ``3:07``, ``1:02:07``, and ``0:00.7`` below one second."""
    if seconds < 1:
        return f"0:0{seconds:.1f}" if seconds < 0.95 else "0:01"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(start_s: float, end_s: float) -> str:
    """The bounds of an interval to a tenth of a second: ``0:03.0–0:09.5``."""

    def exact(seconds: float) -> str:
        minutes, rest = divmod(round(seconds, 1), 60)
        return f"{minutes:.0f}:{rest:04.1f}"

    return f"{exact(start_s)}{EN_DASH}{exact(end_s)}"


def decibels(level: float | None, unit: str) -> str:
    """A level: ``−14.3 LUFS``, or a dash if it is None."""
    return EN_DASH if level is None else f"{level:.1f} {unit}".replace("-", MINUS)


def percent(share: float) -> str:
    """A share in percent: ``12 %``, or ``< 1 %`` for a positive share that rounds to 0."""
    return f"{share:.0%}".replace("%", " %") if share == 0 or share >= 0.005 else "< 1 %"


def megabytes(size: int) -> str:
    """A size: ``3.4 MB``; in kB or bytes if it is smaller."""
    if size < 1000:
        return f"{size} bytes"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def moment(time: datetime) -> str:
    """A time: ``2026-03-01 14:05 UTC``. All times in the tables are UTC."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def ticks(seconds: float) -> Sequence[tuple[float, str]]:
    """Round times for an axis of so many seconds, each with its label."""
    step = next((step for step in TICK_S if seconds / step <= TICKS), seconds)
    times = [number * step for number in range(int(seconds / step) + 1)]
    return [
        (time, f"0:{time:04.1f}" if step < 1 else f"{int(time) // 60}:{int(time) % 60:02}") for time in times
    ]
