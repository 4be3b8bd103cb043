"""The interval of a sensor that ticks at every look of the daemon, or at every n-th one."""

from typing import Final

DAEMON_MARGIN_S: Final = 1
"""The daemon looks at its sensors every 5 s. A tick begins a moment after the look, so that at the next look a sensor
with an interval of 5 s would not be due, and tick every 10 s.
"""


def interval_for(every_s: int) -> int:
    """The ``minimum_interval_seconds`` of a sensor that ticks every ``every_s``, a multiple of 5 s."""
    return max(1, every_s - DAEMON_MARGIN_S)
