"""Lost frames of MP3 and ADTS files. Their frames have no times: the bytes that are no frame tell how many are lost."""

from collections.abc import Callable
from typing import Any, BinaryIO, Final

from av.packet import Packet

from bandscope_dagster.audio.foreign_tags import after_tags, audio_start
from bandscope_dagster.audio.mpeg import adts_frame_bytes, find_frame, mpeg_frame_bytes

FRAME_BYTES: Final = {"mp3": mpeg_frame_bytes, "aac": adts_frame_bytes}
"""FFmpeg's name of the container → the size of a frame, by its header."""

_MEASURED = 64  # frames, for their mean size
_SMALLEST = 7  # bytes of a frame: an ADTS header
_LARGEST = 8191  # bytes of a frame: 13 bits in ADTS
_SEARCHED = 1 << 20  # bytes before the first frame


class FrameGaps:
    """Counts the frames that are lost between the good ones of a file."""

    def __init__(self, file: BinaryIO, name: str, end: int) -> None:
        self._file, self._end = file, end
        self._frame_bytes: Callable[[bytes], int | None] = FRAME_BYTES[name]
        self._told = name == "mp3"  # FFmpeg tells the position of a packet
        self._before = 0  # bytes of packets that the decoder refused before the first good one
        self.begins_with = 0  # bytes before the first packet that are neither frames, nor tags, nor zero
        self._bytes = self._frames = 0  # that are good
        place = file.tell()
        self.position = audio_start(file)  # the byte after the last packet
        file.seek(place)
        self.cut = False  # the last packet is not whole
        self._framed = False  # the last packet begins with a header

    def arrive(self, packet: "Packet[Any]", head: bytes) -> int:
        """The frames that are lost between the packet before and this one."""
        position = packet.pos if self._told else find_frame(self._file, head, self.position, self._end)
        lost = 0
        if position is not None and position > self.position:
            if not self._frames:
                self.begins_with += len(self._junk(self._no_frames(self.position, position)))
            elif not self._told:  # FFmpeg's MP3 packets contain the bytes between frames
                lost = self._at_least_one(len(self._no_frames(self.position, position)), position)
        if position is not None:
            self.position = position + packet.size
        size = self._frame_bytes(head)
        self._framed = size is not None
        self.cut = size is not None and packet.size < size
        return lost

    def refused(self, packet: "Packet[Any]") -> int:
        """The frames of a packet that the decoder refuses; 0 before the first good one, which counts them."""
        if self._frames:
            return self._at_least_one(packet.size, self.position)
        if self._framed:
            self._before += packet.size
        else:
            self.begins_with += packet.size
        return 0

    def good(self, packet: "Packet[Any]") -> int:
        """Take up a decoded packet. Returns the frames that are lost before it, if it is the first one."""
        lost = 0 if self._frames else self._count(self._before, self.position - packet.size)
        self._frames += 1
        self._bytes += packet.size
        return lost

    def rest(self) -> int:
        """The frames that are lost after the last packet."""
        left = self._end - self.position
        return self._count(left, self._end) if not self._told and self._frames and left > 0 else 0

    def _at_least_one(self, size: int, start: int) -> int:
        """The frames in ``size`` bytes; quiet frames are small."""
        return max(1, self._count(size, start)) if size >= _SMALLEST else 0

    def _count(self, size: int, start: int) -> int:
        """The number of frames in ``size`` bytes, by the mean of the good ones and of those from ``start`` on."""
        if not size:
            return 0
        place, position, found = self._file.tell(), start, 0
        while found < _MEASURED:
            self._file.seek(position)
            step = self._frame_bytes(self._file.read(7))
            if not step or position + step > self._end:
                break
            position += step
            found += 1
        self._file.seek(place)
        frames, total = found + self._frames, position - start + self._bytes
        return round(size * frames / total) if total else 0

    def _no_frames(self, start: int, end: int) -> bytes:
        """The bytes between two places, without tags at their beginning."""
        place = self._file.tell()
        self._file.seek(start)
        data = self._file.read(min(end - start, _SEARCHED))
        self._file.seek(place)
        return after_tags(data)

    def _junk(self, data: bytes) -> bytes:
        """Bytes before the first packet, without zeros, tags and whole frames, as the Xing header of an MP3."""
        data = after_tags(data.lstrip(b"\0")).lstrip(b"\0")
        while data and (size := self._frame_bytes(data[:7])) and size <= len(data):
            data = data[size:].lstrip(b"\0")
        at = data.rfind(b"\xff", max(0, len(data) - _LARGEST))
        while at > 0:
            if self._frame_bytes(data[at : at + 7]) == len(data) - at:
                return data[:at].rstrip(b"\0")
            at = data.rfind(b"\xff", max(0, len(data) - _LARGEST), at)
        return data.rstrip(b"\0")
