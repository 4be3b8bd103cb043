"""The findings of decoding besides the audio: damage, doubts, and the stream that was chosen."""

from dataclasses import dataclass, field

_MAX_NOTES = 8  # a hostile file could cause thousands


@dataclass(frozen=True, slots=True)
class Heard:
    """The findings as columns of ``songs``."""

    bad_packets: int = 0
    lost_s: float = 0.0
    warning: str | None = None
    audio_stream: int | None = None
    audio_streams: int | None = None


@dataclass(slots=True)
class Findings:
    """The findings about one upload; decoding fills them in. They are complete after the last block."""

    bad_packets: int = 0  # that the decoder refused, or decoded with a wrong checksum
    silence_s: float = 0.0  # in place of lost audio, so that all audio behind it keeps its place in time
    damage_s: float = 0.0  # lost by damage: silence in its place, or missing at the end
    errors: int = 0  # messages of FFmpeg about the container, or about audio that it decoded nevertheless
    audio_stream: int | None = None  # the decoded one among the file's audio streams, from 1
    audio_streams: int | None = None
    stated_s: float | None = None  # the length that the file states of the stream
    microsoft_order: bool = False  # channels without names are in the order of WAV files
    cut_inside: bool = False  # the file ends in the middle of a packet or page
    ends_damaged: bool = False  # damage was found that may have cost the end
    stopped_early: bool = False  # the demuxer gave up before the end of the file
    notes: list[str] = field(default_factory=list[str])  # parts of the warning

    def note(self, text: str) -> None:
        """Add a part to the warning, once."""
        if text not in self.notes and len(self.notes) < _MAX_NOTES:
            self.notes.append(text)

    @property
    def lost_s(self) -> float:
        """The seconds of audio that the file should have and the song has not."""
        return max(self.silence_s, self.damage_s)

    @property
    def warning(self) -> str | None:
        """The text for a listener; None if the song is all the audio that there is."""
        parts: list[str] = []
        if self.bad_packets:
            packets = "packet is" if self.bad_packets == 1 else "packets are"
            parts.append(f"{self.bad_packets} {packets} damaged")
        if self.silence_s:
            parts.append(f"{self.silence_s:.2f} s of silence are in place of lost audio")
        if self.damage_s > self.silence_s + 0.005:
            parts.append(f"{self.damage_s - self.silence_s:.2f} s are missing")
        if self.errors and not self.bad_packets:
            errors = "error" if self.errors == 1 else "errors"
            parts.append(f"FFmpeg reported {self.errors} {errors}")
        return "; ".join([*parts, *self.notes]) or None

    def summary(self) -> Heard:
        """The findings as they are stored."""
        return Heard(
            bad_packets=min(self.bad_packets, 2**31 - 1),
            lost_s=round(self.lost_s, 6),
            warning=self.warning,
            audio_stream=self.audio_stream,
            audio_streams=self.audio_streams,
        )
