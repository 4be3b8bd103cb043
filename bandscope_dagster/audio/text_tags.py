"""Texts that FFmpeg does not read: those of APEv2 tags in MP3 files, and all but the first value of ID3v2 frames.

ID3v2: https://id3.org/id3v2.4.0-structure and https://id3.org/id3v2.3.0. APEv2:
https://wiki.hydrogenaudio.org/index.php?title=APEv2_specification.
"""

import codecs
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from bandscope_dagster.audio.chunks import AIFF, RIFF, chunk_layout, chunks
from bandscope_dagster.audio.foreign_tags import ape_items, id3v2_size, syncsafe

_ID3V2_NAMES = {b"TIT2": "title", b"TPE1": "artist", b"TALB": "album", b"TCON": "genre"}
_ENCODINGS = ("latin-1", "utf-16", "utf-16-be", "utf-8")  # of an ID3v2 text, by its first byte
for _encoding in (*_ENCODINGS, "cp1251", "cp1252"):
    codecs.lookup(_encoding)  # Python loads a codec at its first use, and a decoding process may open no file
_MAX_FRAMES = 1000
_MAX_TEXT = 65_536  # bytes of one tag


@dataclass(frozen=True, slots=True)
class Text:
    """A text of an ID3v2 tag."""

    values: list[str]
    latin_1: bool  # the encoding that the tag states, perhaps wrongly


def id3v2_texts(file: BinaryIO) -> dict[str, Text]:
    """All values of title, artist, album and genre in an ID3v2.3 or 2.4 tag.

    The tag is at the start of a file, or in a chunk of a WAV or AIFF file.
    """
    start = 0
    if (layout := chunk_layout(file)) in (RIFF, AIFF):
        start = next((place for name, place, _ in chunks(file, layout) if name.lower() == b"id3 "), 0)
    file.seek(start)
    header = file.read(10)
    if len(header) < 10 or header[:3] != b"ID3" or header[3] not in (3, 4):
        return {}
    texts: dict[str, Text] = {}
    for name, data in _frames(file, header[3], header[5], start + id3v2_size(header)):
        if data:
            encoding = _ENCODINGS[data[0]] if data[0] < len(_ENCODINGS) else "latin-1"
            text = data[1:].decode(encoding, "replace").replace("\ufeff", "")
            texts.setdefault(_ID3V2_NAMES[name], Text(_values(text), encoding == _ENCODINGS[0]))
    return texts


def _frames(file: BinaryIO, version: int, flags: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """The name and the text of the frames that are wanted; compressed and encrypted ones are left out."""
    if flags & 0x40:  # an extended header; in 2.3 its size leaves out the size itself
        size = file.read(4)
        file.seek(syncsafe(size) - 4 if version == 4 else int.from_bytes(size, "big"), 1)
    for _ in range(_MAX_FRAMES):
        header = file.read(10)
        if file.tell() > end or len(header) < 10 or not header[:4].strip(b"\0"):
            return
        name, frame_flags = header[:4], header[9]
        size = syncsafe(header[4:8]) if version == 4 else int.from_bytes(header[4:8], "big")
        after = file.tell() + size
        if after > end:
            return
        packed = frame_flags & (0x4C if version == 4 else 0xE0)  # grouped, compressed, encrypted
        if name in _ID3V2_NAMES and not packed and size <= _MAX_TEXT:
            data = file.read(size)
            if version == 4 and frame_flags & 0x01:  # the length before unsynchronisation
                data = data[4:]
            if flags & 0x80 or (version == 4 and frame_flags & 0x02):
                data = data.replace(b"\xff\x00", b"\xff")
            yield name, data
        file.seek(after)


def ape_texts(file: BinaryIO) -> dict[str, list[str]]:
    """All values of title, artist, album and genre in the APEv2 tag at the end of a file."""
    found = ape_items(file)
    if found is None:
        return {}
    position, end = found
    texts: dict[str, list[str]] = {}
    for _ in range(_MAX_FRAMES):
        file.seek(position)
        head = file.read(8 + 256)  # size, flags, a name of at most 255 characters
        name, zero, _ = head[8:].partition(b"\0")
        if len(head) < 8 or not zero:
            break
        size, flags = struct.unpack("<II", head[:8])
        start = position + 8 + len(name) + 1
        position = start + size
        if position > end:
            break
        key = name.decode("ascii", "replace").lower()
        if key in _ID3V2_NAMES.values() and not flags & 0x6 and size <= _MAX_TEXT:
            file.seek(start)
            texts.setdefault(key, _values(file.read(size).decode("utf-8", "surrogateescape")))
    return texts


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split("\0") if value.strip()]
