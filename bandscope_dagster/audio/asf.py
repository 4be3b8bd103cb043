"""The header of an ASF file (WMA), and its packets: FFmpeg skips damaged ones, often without a message."""

import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.chunks import ASF_DATA, ASF_OBJECTS, chunk_layout, chunks

ASF_DATA_HEADER: Final = 26  # bytes of the data object before its first packet, without GUID and size

_FILE_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_PROPERTIES: Final = struct.Struct("<40xQ8xQIII")  # play duration, preroll, flags, least and largest packet
_BROADCAST: Final = 0x01  # flag of a header that was written before the length was known
_PACKET_SIZES: Final = range(64, 1 << 20)  # bytes; encoders write at most 64 KiB
_MARK: Final = b"\x82\0\0"  # error correction data: each packet begins with it


@dataclass(frozen=True, slots=True)
class AsfFile:
    """The facts that FFmpeg does not give."""

    length_s: float | None  # of the longest stream; None if the header states none
    first: int  # byte of the first packet
    packet_bytes: int  # of each packet
    whole: NDArray[np.bool_]  # for each packet: False if its beginning is damaged
    cut: bool  # the last packet is not whole; only known of a file that was written to a pipe

    def lost_bytes(self, position: int = 0) -> int:
        """The bytes of the damaged packets that begin at ``position`` or after it."""
        if not self.packet_bytes:
            return 0
        skipped = max(0, -(-(position - self.first) // self.packet_bytes))
        return self.packet_bytes * int(np.count_nonzero(~self.whole[skipped:]))


def read_asf(file: BinaryIO) -> AsfFile | None:
    """The facts about an ASF file; None if it is another file, or its header is damaged. Moves the position."""
    layout = chunk_layout(file)
    if layout is None or ASF_DATA not in layout.audio:
        return None
    length_s, packet_bytes = None, 0
    for name, start, size in chunks(file, ASF_OBJECTS):
        if name == _FILE_PROPERTIES:
            file.seek(start)
            fields = file.read(_PROPERTIES.size).ljust(_PROPERTIES.size, b"\0")
            duration, preroll, flags, least, largest = _PROPERTIES.unpack(fields)
            length_s = None if flags & _BROADCAST else duration / 1e7 - preroll / 1e3  # from 100 ns and ms
            packet_bytes = least if least == largest and least in _PACKET_SIZES else 0
        if name == ASF_DATA:
            first = start + ASF_DATA_HEADER
            piped = size <= ASF_DATA_HEADER
            end = file.seek(0, 2) if piped else start + size
            whole = _whole_packets(file, first, end, packet_bytes)
            file.seek(first + len(whole) * packet_bytes)
            cut = piped and packet_bytes > 0 and file.read(len(_MARK)) == _MARK
            return AsfFile(length_s if length_s and length_s > 0 else None, first, packet_bytes, whole, cut)
    return None


def _whole_packets(file: BinaryIO, first: int, end: int, packet_bytes: int) -> NDArray[np.bool_]:
    """For each packet in ``[first, end)``, of which the last may be cut, True if it begins like all packets."""
    marks = [np.zeros(0, np.bool_)]
    while packet_bytes and first < end:
        file.seek(first)
        data = file.read(min(_PACKET_SIZES.stop // packet_bytes * packet_bytes, end - first))
        packets = np.frombuffer(data, np.uint8, len(data) // packet_bytes * packet_bytes)
        if not packets.size:
            break
        heads = packets.reshape(-1, packet_bytes)[:, : len(_MARK)]
        marks.append((heads == np.frombuffer(_MARK, np.uint8)).all(axis=1))
        first += packets.size
    found = np.concatenate(marks)
    return found if found.any() else ~found  # packets without error correction data
