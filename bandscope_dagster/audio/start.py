"""The time at which the audio of a file should start: what is before the first frame may be lost."""

from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from bandscope_dagster.audio.container import has_video
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.parts import Part
from bandscope_dagster.audio.stated import ogg_seconds

_LATE_S, _LATE_PACKETS = 0.05, 2.5  # a later start is doubtful
_WMA_START_S, _WMA_START_PACKETS = 0.13, 2  # the first frame of WMA is not later after the first packet
_LATEST_START_S = 10  # an Ogg page of audio is shorter


class Start:
    """Holds the time of the first frame against the beginning of the file."""

    def __init__(
        self, part: Part, container: InputContainer, stream: AudioStream, findings: Findings, from_zero: bool
    ) -> None:
        self._part, self._findings = part, findings
        # Else the first time may be that of a broadcast, of which the file is a part, or that of a video.
        self._from_zero = from_zero or 0 < ogg_seconds(stream, part.first_position) <= _LATEST_START_S
        alone = not has_video(container) and container.format.name.startswith(("matroska", "asf"))
        self._earliest_s = 0.0 if alone else None  # ASF with a video: the time of the first packet
        self._lost_before = False  # packets of ASF, of which some may have been audio

    def packet(self, packet: "Packet[Any]") -> None:
        """Take up a packet before the first frame."""
        if self._part.asf is None or self._earliest_s is not None or packet.pts is None:
            return
        self._earliest_s = float(packet.pts * packet.time_base)
        self._lost_before = self._part.asf.lost_bytes() > self._part.asf.lost_bytes(packet.pos or 0)

    def expected_s(self, first_s: float, packet_s: float, damaged: bool) -> float | None:
        """The time at which the song starts if its first frame is at ``first_s``; None if at that.

        ``packet_s`` is the length of a packet. ``damaged`` tells that damage was found before the frame.
        """
        if damaged and self._from_zero:
            return 0.0
        if self._earliest_s is None:
            return None
        late_s = max(_LATE_S, _LATE_PACKETS * packet_s)
        if first_s > self._earliest_s + late_s and damaged:
            return self._earliest_s + min(_WMA_START_S, _WMA_START_PACKETS * packet_s)
        if self._lost_before or first_s > self._earliest_s + late_s:
            self._findings.note(f"the audio starts at {first_s:.2f} s: its beginning may be missing")
        return None
