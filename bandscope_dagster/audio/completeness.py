"""Find truncated files by their structure, before anything is decoded.

FFmpeg gives no error for a cut file. So we compare the stated size with the real size. Some files state no length, and
neither this module nor a count of samples can find that they are truncated: MP3 without a Xing header, bare AAC
(ADTS), and WAV written to a pipe.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

TOLERATED_LOSS = 0.02  # share of a song that may be missing before it counts as truncated

_MAX_CHUNKS = 10_000  # a hostile file could have a chunk every eight bytes
_OGG_PAGE_MAX = 65_307  # bytes, RFC 3533
_OGG_END_OF_STREAM = 0x04
# Placeholder sizes of programs that write to a pipe: FFmpeg (all ones), sox (0x7ffff000), and zero.
_UNKNOWN_SIZES = frozenset({0, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1})

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_ID3V2_HEADER = 10  # bytes


@dataclass(frozen=True, slots=True)
class _ChunkLayout:
    """The layout of a container format that consists of chunks."""

    first: int  # byte of the first chunk
    header: struct.Struct
    id_first: bool
    size_counts_header: bool
    padding: int  # chunks start at multiples of this number of bytes
    audio: bytes  # name of the chunk that must be complete
    index: bytes | None = None  # name of the chunk that must be there, if any


_RIFF = _ChunkLayout(12, struct.Struct("<4sI"), True, False, 2, b"data")
_AIFF = _ChunkLayout(12, struct.Struct(">4sI"), True, False, 2, b"SSND")
_CAF = _ChunkLayout(8, struct.Struct(">4sQ"), True, False, 1, b"data")
_W64 = _ChunkLayout(40, struct.Struct("<4s12xQ"), True, True, 8, b"data")
_MP4 = _ChunkLayout(0, struct.Struct(">I4s"), False, True, 1, b"mdat", b"moov")


def missing_part(file: BinaryIO) -> str | None:
    """A message that names the missing part; None if the file looks complete or its format has no length."""
    file.seek(0)
    head = file.read(16)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _find_truncated_chunk(file, _RIFF)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _find_truncated_chunk(file, _AIFF)
    if head[:4] == b"caff":
        return _find_truncated_chunk(file, _CAF)
    if head == _W64_RIFF:
        return _find_truncated_chunk(file, _W64)
    if head[4:8] == b"ftyp":
        return _find_truncated_chunk(file, _MP4)
    if head[:4] == b"OggS":
        return _missing_ogg_end(file)
    return None


def states_its_length(file: BinaryIO, container: str) -> bool:
    """True if FFmpeg takes the duration from the file, and does not estimate it from size and bit rate."""
    if container == "aac":
        return False
    return container != "mp3" or _has_frame_count(file)


def _find_truncated_chunk(file: BinaryIO, layout: _ChunkLayout) -> str | None:
    end = _size(file)
    rf64_data: int | None = None
    index_seen = False
    for name, start, size in _chunks(file, layout, end):
        if (
            name == b"ds64"
        ):  # EBU Tech 3306: sizes that do not fit 32 bits; the second number is the size of `data`
            file.seek(start)
            rf64_data = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        index_seen |= name == layout.index
        if name != layout.audio:
            continue
        if name == b"data" and size == 0xFFFF_FFFF and rf64_data:
            size = rf64_data
        if size not in _UNKNOWN_SIZES and end - start < (1 - TOLERATED_LOSS) * size:
            return f"the {_text(name)} chunk has {end - start} of the {size} bytes it should have; upload it again"
    if layout.index is not None and not index_seen:
        return f"the index (the {_text(layout.index)} chunk) is missing; upload it again"
    return None


def _chunks(file: BinaryIO, layout: _ChunkLayout, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, and the first byte and the size of its payload."""
    position = layout.first
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(layout.header.size)
        if len(header) < layout.header.size:
            return
        fields = layout.header.unpack(header)
        name, size = fields if layout.id_first else reversed(fields)
        start = position + layout.header.size
        if not layout.id_first and size == 1:  # MP4: a 64-bit size follows
            size = int.from_bytes(file.read(8), "big")
            start += 8
        if layout.size_counts_header:
            size = max(size - (start - position), 0) if size else 0
        yield name, start, size
        position = start + size
        position += -position % layout.padding
        if (size == 0 and name == layout.audio) or position >= end:
            return


def _missing_ogg_end(file: BinaryIO) -> str | None:
    """A message if the file lacks its end; RFC 3533: the last page of a stream has the end-of-stream flag."""
    end = _size(file)
    file.seek(max(0, end - 2 * _OGG_PAGE_MAX))
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page >= 0 and len(tail) >= page + 27:
        segments = tail[page + 27 : page + 27 + tail[page + 26]]
        whole = len(segments) == tail[page + 26] and len(tail) >= page + 27 + len(segments) + sum(segments)
        if whole and tail[page + 5] & _OGG_END_OF_STREAM:
            return None
    return "the last Ogg page of the file is not the end of the stream; upload it again"


def _has_frame_count(file: BinaryIO) -> bool:
    """True if the first MPEG frame, after any ID3v2 tag, is a Xing, Info or VBRI header."""
    file.seek(0)
    tag = file.read(_ID3V2_HEADER)
    start = 0
    if tag[:3] == b"ID3" and len(tag) == _ID3V2_HEADER:
        size = 0
        for byte in tag[6:10]:  # four bytes of seven bits each
            size = size << 7 | byte & 0x7F
        start = _ID3V2_HEADER + size
    file.seek(start)
    first_frame = file.read(2048)
    return any(mark in first_frame for mark in (b"Xing", b"Info", b"VBRI"))


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace").strip()


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)
