"""What the headers of a FLAC stream state (RFC 9639): the digest of its samples, and the place of each frame."""

from collections.abc import Iterator
from typing import Final

_BLOCK_SIZES: Final = (0, 192, 576, 1152, 2304, 4608, 0, 0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


def stated_md5(streaminfo: bytes | None) -> bytes | None:
    """The MD5 digest of all samples; None if the encoder did not compute it."""
    digest = (streaminfo or b"")[18:34]
    return digest if len(digest) == 16 and any(digest) else None


def stated_samples(streaminfo: bytes | None) -> int | None:
    """The number of samples of each channel; None if it is not known."""
    if streaminfo is None or len(streaminfo) < 18:
        return None
    return (int.from_bytes(streaminfo[13:18], "big") & (1 << 36) - 1) or None


def first_sample(packet: bytes, block_size: int) -> int | None:
    """The number of a frame's first sample, of which ``packet`` is the beginning; None if it is no frame.

    ``block_size`` is that of the stream, if its frames are numbered and not its samples.
    """
    if len(packet) < 6 or packet[0] != 0xFF or packet[1] & 0xFE != 0xF8:
        return None
    number, length = _coded_number(packet[4:11])
    if number is None:
        return None
    end = 4 + length
    size = _BLOCK_SIZES[packet[2] >> 4]
    if packet[2] >> 4 in (6, 7):
        bytes_ = packet[2] >> 4 == 7
        size = int.from_bytes(packet[end : end + 1 + bytes_], "big") + 1
        end += 1 + bytes_
    end += {12: 1, 13: 2, 14: 2}.get(packet[2] & 0x0F, 0)
    if len(packet) <= end or _crc8(packet[:end]) != packet[end]:
        return None
    return number if packet[1] & 1 else number * (block_size or size)


def split_frames(packet: bytes) -> Iterator[bytes]:
    """The parts of a packet that begin with the header of a frame; the first begins with the packet."""
    start = 0
    at = packet.find(b"\xff", 1)
    while at >= 0:
        if first_sample(packet[at : at + 32], 0) is not None:
            yield packet[start:at]
            start = at
        at = packet.find(b"\xff", at + 1)
    yield packet[start:]


def _coded_number(data: bytes) -> tuple[int | None, int]:
    """A number coded as UTF-8 codes characters, in up to seven bytes, and the number of bytes."""
    ones = 8 - (data[0] ^ 0xFF).bit_length() if data else 0
    if ones == 0:
        return (data[0], 1) if data else (None, 0)
    if ones in (1, 8) or len(data) < ones:
        return None, 0
    number = data[0] & (0x7F >> ones)
    for byte in data[1:ones]:
        if byte & 0xC0 != 0x80:
            return None, 0
        number = number << 6 | byte & 0x3F
    return number, ones


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x107) if crc & 0x80 else crc << 1
    return crc
