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
    max_tag_bytes: int = 2**20  # of all tags together, in UTF-8
    max_picture_bytes: int = 32 * 2**20  # of each picture in the file
    max_decode_memory_bytes: int = 2**30  # of a decoding process, on top of what it starts with (Linux)
    max_decode_cpu_s: int = 600  # a song of two hours takes some 40 s
    max_decode_silence_s: float = 60.0  # without anything decoded
