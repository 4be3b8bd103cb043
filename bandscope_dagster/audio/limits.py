"""The limits on an upload, checked before and while it is decoded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on one upload. An upload that exceeds one is rejected, never shortened.

    The names and values are part of the input digest of ``songs``: a change makes every stored row outdated.
    """

    max_bytes: int
    min_duration_s: float = 0.5
    max_duration_s: float = 7200.0
    min_sample_rate: int = 4000  # Hz; at a lower stated rate, few bytes become hours at 44.1 kHz
    max_sample_rate: int = 384_000  # Hz
    max_channels: int = 8
    max_tag_bytes: int = 2**20  # all tags together, in UTF-8
    max_picture_bytes: int = 32 * 2**20  # each picture in the file
    max_decode_memory_bytes: int = 2**30  # a decoding process, in addition to its memory at the start (Linux)
    max_decode_cpu_s: int = 600  # CPU time; a song of two hours takes about 40 s
    max_decode_silence_s: float = 60.0  # time without any decoded audio
