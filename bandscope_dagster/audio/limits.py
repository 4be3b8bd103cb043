"""What an upload may be at most: the bounds that hold before and while it is decoded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one upload. What lies outside is rejected, never shortened."""

    max_bytes: int
    min_duration_s: float = 0.5
    max_duration_s: float = 7200.0
    min_sample_rate: int = 4000  # Hz; a lower claimed rate would blow few bytes up into hours at 44.1 kHz
    max_sample_rate: int = 384_000  # Hz
    max_channels: int = 8
