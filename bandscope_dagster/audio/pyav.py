"""Two things in which PyAV needs care: the messages of FFmpeg, and layouts of channels that it frees twice."""

import ctypes
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import av.logging
from av.audio.layout import AudioLayout

# Messages that are not about audio. "Whitelist" is about pictures and video, which are never decoded.
_NOT_ABOUT_AUDIO: Final = re.compile(
    "whitelist|tag|metadata|comment|picture|cover|mimetype|chapter|cue|timecode|language|BOM", re.IGNORECASE
)


@contextmanager
def silent() -> Generator[None]:
    """FFmpeg prints nothing; it counts its errors."""
    av.logging.set_level(av.logging.PANIC)
    try:
        yield
    finally:
        av.logging.set_level(None)


def error_count() -> int:
    """The number of errors that FFmpeg has reported in this process."""
    return av.logging.get_last_error()[0]


class Messages:
    """The errors that FFmpeg reported inside ``captured_errors``."""

    def __init__(self, entries: list[tuple[int, str, str]]) -> None:
        self._entries = entries

    def about(self, *names: str) -> int:
        """The number of messages about audio by these parts of FFmpeg: demuxers and decoders."""
        return sum(name in names and not _NOT_ABOUT_AUDIO.search(text) for _, name, text in self._entries)


@contextmanager
def captured_errors() -> Generator[Messages]:
    """Keep the texts of errors, inside ``silent``."""
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # else a message that an earlier opening reported is left out
    try:
        with av.logging.Capture() as entries:
            yield Messages(entries)
    finally:
        av.logging.set_skip_repeated(True)
        av.logging.set_level(av.logging.PANIC)


def never_free(layout: AudioLayout) -> None:
    """Keep a layout for ever, also when Python ends.

    PyAV 18 frees the map of a layout whose order is not FFmpeg's own twice: with the frame, and with ``frame.layout``.
    The decoding process ends with its song.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(layout))
