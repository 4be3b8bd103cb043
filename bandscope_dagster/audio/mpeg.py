"""Headers of MPEG audio and ADTS frames: sizes, and the number of frames that a file states."""

from typing import BinaryIO, Final

from bandscope_dagster.audio.foreign_tags import audio_start

_SEARCHED: Final = 1 << 16  # bytes after the tags, in which the first frame must start
_FRAMES_STATED: Final = 0x01  # flag of a Xing or Info header

# kbit/s, ISO/IEC 11172-3 and 13818-3, by (MPEG-1?, layer); index 0 is "free", 15 is forbidden.
_BIT_RATES: Final = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def mpeg_frame_bytes(header: bytes) -> int | None:
    """The size of an MPEG audio frame; None if the four bytes are no header, or one that states no bit rate."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rate, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    bits = 1000 * _BIT_RATES[version == 3, layer][bit_rate]
    hertz = _SAMPLE_RATES[version][rate]
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def adts_frame_bytes(header: bytes) -> int | None:
    """The size of an ADTS frame with its header; None if the bytes are no header (ISO/IEC 13818-7)."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    return (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5


def states_frame_count(file: BinaryIO) -> bool:
    """True if the first frame of an MP3 is a Xing, Info or VBRI header with the number of frames."""
    file.seek(audio_start(file))
    data = file.read(_SEARCHED + 4096)
    for at in range(min(len(data), _SEARCHED)):
        if data[at] == 0xFF and (size := mpeg_frame_bytes(data[at : at + 4])) is not None:
            following = data[at + size : at + size + 4]
            if len(following) < 4 or mpeg_frame_bytes(following) is not None:
                return _has_frame_count(data[at : at + size])
    return False


def _has_frame_count(frame: bytes) -> bool:
    side_info = (17 if frame[3] >> 6 == 3 else 32) if frame[1] & 8 else (9 if frame[3] >> 6 == 3 else 17)
    xing = frame[4 + side_info :]
    if xing[:4] in (b"Xing", b"Info"):
        flags, frames = int.from_bytes(xing[4:8], "big"), int.from_bytes(xing[8:12], "big")
        return bool(flags & _FRAMES_STATED) and frames > 0
    vbri = frame[36:]
    return vbri[:4] == b"VBRI" and int.from_bytes(vbri[14:18], "big") > 0


def find_frame(file: BinaryIO, head: bytes, start: int, end: int) -> int | None:
    """The position of the next frame that begins with ``head``, at or after ``start``; the file keeps its position.

    FFmpeg's ADTS demuxer searches for the next header without telling how many bytes it skipped.
    """
    place = file.tell()
    try:
        file.seek(start)
        if start < end and file.read(len(head)) == head:
            return start
        while start < end:
            file.seek(start)
            data = file.read(_SEARCHED + len(head))
            if (at := data.find(head)) >= 0:
                return start + at
            start += _SEARCHED
        return None
    finally:
        file.seek(place)
