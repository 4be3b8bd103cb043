"""The chunks of WAV, W64, AIFF, CAF, MP4 and ASF files: names, places and sizes."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_MAX_CHUNKS = 10_000  # a hostile file could have a chunk every eight bytes


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """The layout of a container format that consists of chunks."""

    first: int  # byte of the first chunk
    header: struct.Struct
    id_first: bool
    size_counts_header: bool
    padding: int  # chunks start at multiples of this number of bytes
    audio: tuple[bytes, ...]  # names of the chunks that must be complete
    index: bytes | None = None  # name of the chunk that must be there and complete, if any
    named: bool = True  # the first four bytes of a name are ASCII


RIFF = ChunkLayout(12, struct.Struct("<4sI"), True, False, 2, (b"data",))
AIFF = ChunkLayout(12, struct.Struct(">4sI"), True, False, 2, (b"SSND",))
_CAF = ChunkLayout(8, struct.Struct(">4sQ"), True, False, 1, (b"data",))
W64 = ChunkLayout(40, struct.Struct("<4s12xQ"), True, True, 8, (b"data",))
_MP4 = ChunkLayout(0, struct.Struct(">I4s"), False, True, 1, (b"mdat", b"moof"), b"moov", named=False)
_ASF = ChunkLayout(0, struct.Struct("<16sQ"), True, True, 1, (ASF_DATA,), named=False)
ASF_OBJECTS = replace(_ASF, first=30)
"""The objects inside an ASF header, and those after it."""


def chunk_layout(file: BinaryIO) -> ChunkLayout | None:
    """The layout of a file, by its first bytes; None for formats without chunks."""
    file.seek(0)
    head = file.read(16)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return RIFF
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if head[:4] == b"caff":
        return _CAF
    if head == _W64_RIFF:
        return W64
    if head[4:8] == b"ftyp":
        return _MP4
    return _ASF if head == _ASF_HEADER else None


def chunks(file: BinaryIO, layout: ChunkLayout) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, and the first byte and the size of its payload."""
    end = file.seek(0, 2)
    position = layout.first
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(layout.header.size)
        if len(header) < layout.header.size:
            return
        fields = layout.header.unpack(header)
        name, stated = fields if layout.id_first else reversed(fields)
        start, size = position + layout.header.size, stated
        if not layout.id_first and stated == 1:  # MP4: a 64-bit size follows
            size = int.from_bytes(file.read(8), "big")
            start += 8
        if layout.size_counts_header:
            size = max(size - (start - position), 0)
        yield name, start, size
        position = start + size
        position += -position % layout.padding
        # A size of zero means: to the end of the file. An MP4 box that is only a header has the size 8.
        if (stated == 0 and name in layout.audio) or position >= end:
            return
