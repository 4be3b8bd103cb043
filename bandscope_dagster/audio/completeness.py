"""Find truncated files by their structure, before anything is decoded.

FFmpeg gives no error for a cut file. So we compare the stated size with the real size. A size is only used if the
container states it of the audio, or of the whole file: ``stated_length`` in ``stated.py`` has the stated durations.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bandscope_dagster.audio.foreign_tags import audio_start

TOLERATED_LOSS = 0.02  # share of a song that may be missing before it counts as truncated

_MAX_CHUNKS = 10_000  # a hostile file could have a chunk every eight bytes

# Programs that cannot go back to the header leave a placeholder for the size: zero, all ones, or 2 or 4 GiB, mostly
# less the size of the header (FFmpeg 0xffffffff, sox 0x7ffff000, arecord 0x80000000).
_PLACEHOLDERS = ((0, 0), (0x7FFF_0000, 0x8000_FFFF), (0xFFFF_0000, 0xFFFF_FFFF), (2**63 - 2**16, 2**64 - 1))

_W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_EBML = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA_HEADER = 26  # bytes of the data object before its first packet, without GUID and size


@dataclass(frozen=True, slots=True)
class Missing:
    """A part of the file that is stated and not there."""

    message: str
    share: float  # of the audio


@dataclass(frozen=True, slots=True)
class _ChunkLayout:
    """The layout of a container format that consists of chunks."""

    first: int  # byte of the first chunk
    header: struct.Struct
    id_first: bool
    size_counts_header: bool
    padding: int  # chunks start at multiples of this number of bytes
    audio: tuple[bytes, ...]  # names of the chunks that must be complete
    index: bytes | None = None  # name of the chunk that must be there and complete, if any


_RIFF = _ChunkLayout(12, struct.Struct("<4sI"), True, False, 2, (b"data",))
_AIFF = _ChunkLayout(12, struct.Struct(">4sI"), True, False, 2, (b"SSND",))
_CAF = _ChunkLayout(8, struct.Struct(">4sQ"), True, False, 1, (b"data",))
_W64 = _ChunkLayout(40, struct.Struct("<4s12xQ"), True, True, 8, (b"data",))
_MP4 = _ChunkLayout(0, struct.Struct(">I4s"), False, True, 1, (b"mdat", b"moof"), b"moov")
_ASF = _ChunkLayout(0, struct.Struct("<16sQ"), True, True, 1, (_ASF_DATA,))


def missing_part(file: BinaryIO) -> Missing | None:
    """The part that is missing; None if the file looks complete or its format states no size."""
    start = audio_start(file)
    file.seek(start)
    head = file.read(16)
    layout: _ChunkLayout | None = None
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        layout = _RIFF
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        layout = _AIFF
    elif head[:4] == b"caff":
        layout = _CAF
    elif head == _W64_RIFF:
        layout = _W64
    elif head[4:8] == b"ftyp":
        layout = _MP4
    elif head == _ASF_HEADER:
        layout = _ASF
    elif head[:4] == _EBML:
        return _cut_matroska(file, start)
    return None if layout is None else _find_cut_chunk(file, layout, start)


def _find_cut_chunk(file: BinaryIO, layout: _ChunkLayout, origin: int) -> Missing | None:
    end = _size(file)
    rf64_data: int | None = None
    index_seen = False
    for name, start, size in _chunks(file, layout, origin, end):
        if (
            name == b"ds64"
        ):  # EBU Tech 3306: sizes that do not fit 32 bits; the second number is the size of `data`
            file.seek(start)
            rf64_data = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        index_seen |= name == layout.index
        if name not in layout.audio and name != layout.index:
            continue
        if name == b"data" and size == 0xFFFF_FFFF and rf64_data:
            size = rf64_data
        if name == _ASF_DATA and size <= _ASF_DATA_HEADER:
            continue  # written to a pipe
        if name != layout.index and _is_placeholder(size):
            continue
        if end - start < size:
            share = 1.0 if name == layout.index else (size - (end - start)) / size
            return Missing(
                f"the {_text(name)} chunk has {end - start} of the {size} bytes it should have", share
            )
    if layout.index is not None and not index_seen:
        return Missing(f"the index (the {_text(layout.index)} chunk) is missing", 1.0)
    return None


def _is_placeholder(size: int) -> bool:
    return any(low <= size <= high for low, high in _PLACEHOLDERS)


def _chunks(file: BinaryIO, layout: _ChunkLayout, origin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, and the first byte and the size of its payload."""
    position = origin + layout.first
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
        position += -(position - origin) % layout.padding
        # A size of zero means: to the end of the file. An MP4 box that is only a header has the size 8.
        if (stated == 0 and name in layout.audio) or position >= end:
            return


def _cut_matroska(file: BinaryIO, start: int) -> Missing | None:
    """Matroska has one segment after the EBML header; its size is unknown if the file was written to a pipe."""
    end = _size(file)
    position = start + 4
    size, length = _ebml_size(file, position)
    if size is None:
        return None
    position += length + size
    file.seek(position)
    if file.read(4) != _MATROSKA_SEGMENT:
        return None
    size, length = _ebml_size(file, position + 4)
    position += 4 + length
    if not size or end - position >= size:
        return None
    return Missing(
        f"the segment has {end - position} of the {size} bytes it should have",
        (size - (end - position)) / size,
    )


def _ebml_size(file: BinaryIO, position: int) -> tuple[int | None, int]:
    """A size as EBML codes it (RFC 8794), None if it is unknown, and the number of its bytes."""
    file.seek(position)
    data = file.read(8)
    if not data or not data[0]:
        return None, 0
    length = 9 - data[0].bit_length()
    mask = (1 << 7 * length) - 1
    size = int.from_bytes(data[:length], "big") & mask
    return (None if size == mask or len(data) < length else size), length


def _text(name: bytes) -> str:
    return "data" if name == _ASF_DATA else name.decode("ascii", "replace").strip()


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)
