"""A part of an open file as a file of its own, with some bytes replaced; the file itself stays unchanged."""

import io
from collections.abc import Mapping
from typing import BinaryIO


class FileView(io.RawIOBase):
    """The bytes ``[start, end)`` of a file. ``patches`` (position in the file → bytes) replace what is there."""

    def __init__(
        self, file: BinaryIO, start: int = 0, end: int | None = None, patches: Mapping[int, bytes] = {}
    ) -> None:
        self._file = file
        self._start = start
        self._end = file.seek(0, 2) if end is None else end
        self._patches = dict(patches)
        self._position = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position in the view."""
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; the new position."""
        base = (0, self._position, self._end - self._start)[whence]
        if base + offset < 0:
            raise ValueError(f"a negative position: {base + offset}")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, or fewer at the end."""
        first = self._start + self._position
        left = max(0, self._end - first)
        self._file.seek(first)
        data = self._file.read(left if size < 0 else min(size, left))
        for position, patch in self._patches.items():
            if first < position + len(patch) and position < first + len(data):
                changed = bytearray(data)
                for at, byte in enumerate(patch, position - first):
                    if 0 <= at < len(changed):
                        changed[at] = byte
                data = bytes(changed)
        self._position += len(data)
        return data
