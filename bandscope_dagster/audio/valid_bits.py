"""WAV files whose samples have fewer valid bits than their container, such as 24 bits in 32.

FFmpeg chooses the decoder by the valid bits, and then reads noise. The samples are in the upper bits of their
containers (Microsoft, "Multiple channel audio data and WAVE files"), so all bits of the container can be read.
"""

import struct
from collections.abc import Mapping
from typing import BinaryIO

from bandscope_dagster.audio.chunks import RIFF, W64, chunk_layout, chunks

_EXTENSIBLE = 0xFFFE


def valid_bits_patch(file: BinaryIO) -> Mapping[int, bytes]:
    """Position → bytes that make FFmpeg read all bits of each sample; empty if nothing has to be changed."""
    layout = chunk_layout(file)
    if layout not in (RIFF, W64):
        return {}
    for name, start, _ in chunks(file, layout):
        if name == b"fmt ":
            file.seek(start)
            return _patch(start, file.read(40))
    return {}


def _patch(position: int, form: bytes) -> Mapping[int, bytes]:
    if len(form) < 20:
        return {}
    tag, channels, _, _, align, bits = struct.unpack_from("<HHIIHH", form)
    if not channels or align % channels:
        return {}
    container = 8 * align // channels
    if container not in (8, 16, 24, 32, 64):
        return {}
    patches: dict[int, bytes] = {}
    if tag == _EXTENSIBLE and len(form) >= 26:
        kind, valid = struct.unpack_from("<H", form, 24)[0], struct.unpack_from("<H", form, 18)[0]
        if kind in (1, 3) and any(-(-each // 8) * 8 != container for each in (bits, valid) if each):
            patches = {
                position + 14: struct.pack("<H", container),
                position + 18: struct.pack("<H", container),
            }
    elif tag in (1, 3) and 0 < bits < container and -(-bits // 8) * 8 != container:
        patches = {position + 14: struct.pack("<H", container)}
    return patches
