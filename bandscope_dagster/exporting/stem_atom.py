"""The ``stem`` atom of Native Instruments' Stems: the names and colours of the four stems in an MP4 file.

Traktor and Mixxx read it from ``moov/udta/stem``: a box (ISO/IEC 14496-12) with JSON in UTF-8 as its whole content,
without version and flags. Its fields are those of NI's public Stem specification, as stempeg's NIStemsWriter has them
(stempeg 0.2.6, default_metadata.json), which calls ``MP4Box -udta 0:type=stem``. FFmpeg cannot write the box.
"""

import json
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final, NamedTuple

COLOURS: Final[Mapping[str, str]] = {
    "drums": "#009E73",
    "bass": "#D55E00",
    "other": "#CC79A7",
    "vocals": "#56B4E9",
}
"""Stem → its colour in NI's example, in the order of the streams after the mixture."""

# Effects on the sum of the stems while they are mixed live. Both are off; the values are NI's defaults.
_MASTERING: Final = {
    "compressor": {
        "enabled": False,
        "input_gain": 0.5,
        "output_gain": 0.5,
        "threshold": 0,
        "dry_wet": 50,
        "attack": 0.003000000026077032,
        "release": 0.300000011920929,
        "ratio": 3,
        "hp_cutoff": 300,
    },
    "limiter": {
        "enabled": False,
        "threshold": 0,
        "ceiling": -0.3499999940395355,
        "release": 0.05000000074505806,
    },
}


class _Box(NamedTuple):
    """A box, by its place."""

    kind: bytes  # four characters
    start: int  # of its header
    content: int  # behind its header
    end: int


def stem_atom() -> bytes:
    """The box for a file with the stems of ``COLOURS``."""
    stems = [{"name": stem.capitalize(), "color": colour} for stem, colour in COLOURS.items()]
    manifest = {"version": 1, "mastering_dsp": _MASTERING, "stems": stems}
    return _box(b"stem", json.dumps(manifest).encode())


def add_stem_atom(file: BinaryIO) -> None:
    """Add the box to a complete MP4 file, which must be open for reading and writing.

    ``moov`` must be the last box, as FFmpeg writes it: the offsets in it then stay valid when it grows.

    Raises:
        ValueError: it is not.
    """
    length = file.seek(0, 2)
    *_, last = _boxes(file, 0, length)
    if last.kind != b"moov":
        raise ValueError(f"the last box of the file is {last.kind!r} and not moov")
    file.seek(last.content)
    content = file.read(last.end - last.content)
    inner = list(_boxes(file, last.content, last.end))
    found = next((box for box in inner if box.kind == b"udta"), None)
    if found is None:
        before, user_data, after = content, b"", b""
    else:
        start, inside, end = (place - last.content for place in (found.start, found.content, found.end))
        before, user_data, after = content[:start], content[inside:end], content[end:]
    file.seek(last.start)
    file.write(_box(b"moov", before + _box(b"udta", user_data + stem_atom()) + after))


def _box(kind: bytes, content: bytes) -> bytes:
    return (len(content) + 8).to_bytes(4, "big") + kind + content


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    """The boxes between two places of the file."""
    while start < end:
        file.seek(start)
        header = file.read(16)
        size, kind, content = int.from_bytes(header[:4], "big"), header[4:8], start + 8
        if size == 1:  # 64 bits follow, for audio of 4 GiB and more
            size, content = int.from_bytes(header[8:], "big"), start + 16
        if size < content - start or start + size > end:
            raise ValueError(f"the box {kind!r} at {start} has an impossible size of {size} bytes")
        yield _Box(kind, start, content, start + size)
        start += size
