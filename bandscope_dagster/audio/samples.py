"""The samples of a decoded frame as an array."""

from typing import Any, Final

import numpy as np
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

TYPES: Final = {"u8": "u1", "s16": "<i2", "s32": "<i4", "flt": "<f4", "dbl": "<f8"}
"""FFmpeg's sample formats, without the "p" for planar, and their types in numpy."""


def sample_format(frame: AudioFrame) -> str:
    """FFmpeg's name of the sample format, without the "p" for planar (one array per channel)."""
    return frame.format.name.removesuffix("p")


def samples_of(frame: AudioFrame) -> NDArray[Any]:
    """``(channels, n)`` in the type of the frame.

    PyAV's ``to_ndarray`` reads a ninth plane behind the eight of a planar frame with eight channels, and crashes.
    """
    kind, channels = TYPES[sample_format(frame)], frame.layout.nb_channels
    if not frame.format.is_planar:
        data = np.frombuffer(frame.planes[0], kind, frame.samples * channels)
        return data.reshape(-1, channels).T
    return np.stack([np.frombuffer(plane, kind, frame.samples) for plane in frame.planes[:channels]])
