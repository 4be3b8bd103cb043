"""Find truncated files by their structure, before anything is decoded.

FFmpeg gives no error for a cut file. So we compare the stated size with the real size. A size is only used if the
container states it of the audio, or of the whole file: ``stated_length`` in ``stated.py`` has the stated durations.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from bandscope_dagster.audio.asf import ASF_DATA_HEADER
from bandscope_dagster.audio.chunks import ASF_DATA, ChunkLayout, chunk_layout, chunks

TOLERATED_LOSS = 0.02  # share of a song that may be missing before it counts as truncated

# Programs that cannot go back to the header leave a placeholder for the size: zero, all ones, or 2 or 4 GiB, mostly
# less the size of the header (FFmpeg 0xffffffff, sox 0x7ffff000, arecord 0x80000000).
_PLACEHOLDERS = ((0, 0), (0x7FFF_0000, 0x8000_FFFF), (0xFFFF_0000, 0xFFFF_FFFF), (2**63 - 2**16, 2**64 - 1))

_TOLERATED_REST = 4096  # bytes after the audio without a chunk of their own; 23 ms of CD audio

_EBML = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"


@dataclass(frozen=True, slots=True)
class Missing:
    """A part of the file that is stated and not there."""

    message: str
    share: float  # of the audio


def missing_part(file: BinaryIO) -> Missing | None:
    """The part that is missing; None if the file looks complete or its format states no size."""
    file.seek(0)
    if file.read(4) == _EBML:
        return _cut_matroska(file)
    layout = chunk_layout(file)
    return None if layout is None else _find_cut_chunk(file, layout)


def _find_cut_chunk(file: BinaryIO, layout: ChunkLayout) -> Missing | None:
    end = _size(file)
    rf64_data: int | None = None
    index_seen = starts_again = False
    starts = 0
    audio_seen = False
    for name, start, size in chunks(file, layout):
        unnamed = end - start + layout.header.size
        if audio_seen and layout.named and not name[:4].isascii() and unnamed > _TOLERATED_REST:
            message = (
                f"{unnamed} bytes after the audio belong to no chunk; they may be audio that is not counted"
            )
            return Missing(message, 0.0)
        audio_seen |= name in layout.audio
        if (
            name == b"ds64"
        ):  # EBU Tech 3306: sizes that do not fit 32 bits; the second number is the size of `data`
            file.seek(start)
            rf64_data = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        index_seen |= name == layout.index
        starts += name == b"ftyp"
        starts_again |= name in (b"RIFF", b"FORM") or starts > 1
        if name not in layout.audio and name != layout.index:
            continue
        if name == b"data" and size == 0xFFFF_FFFF and rf64_data:
            size = rf64_data
        if name == ASF_DATA and size <= ASF_DATA_HEADER:
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
    if starts_again:
        return Missing("another file follows in the same file, which is not read", 0.0)
    return None


def _is_placeholder(size: int) -> bool:
    return any(low <= size <= high for low, high in _PLACEHOLDERS)


def _cut_matroska(file: BinaryIO) -> Missing | None:
    """Matroska has one segment after the EBML header; its size is unknown if the file was written to a pipe."""
    end = _size(file)
    position = 4
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
    return "data" if name == ASF_DATA else name.decode("ascii", "replace").strip()


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)
