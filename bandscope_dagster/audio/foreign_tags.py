"""Tags before and after the audio, which most containers do not know of: ID3, APE and Lyrics3.

Players skip them, so they are neither audio nor damage.
"""

from typing import BinaryIO, Final, cast

from bandscope_dagster.audio.file_view import FileView

_ID3V2_HEADER = 10  # bytes
_ID3V1_BYTES = 128
_APE_FOOTER = 32  # bytes; also the size of its header
_LYRICS_END = b"LYRICS200"
_MAX_TAGS = 16  # one after the other

# The beginning of files in front of which some programs write an ID3v2 tag.
_NOT_AFTER_ID3: Final = (
    b"RIFF",
    b"RF64",
    b"FORM",
    b"caff",
    b"riff",
    b"OggS",
    b"wvpk",
    b"\x1aE\xdf\xa3",
    b"0&\xb2u",
)

_MARKS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")


def is_tag(data: bytes) -> bool:
    """True if the bytes begin with a tag."""
    return data.startswith(_MARKS)


def is_tag_at(file: BinaryIO, position: int) -> bool:
    """True if a tag begins there; the file keeps its position."""
    place = file.tell()
    file.seek(position)
    found = is_tag(file.read(16))
    file.seek(place)
    return found


def after_tags(data: bytes) -> bytes:
    """The bytes after the tags at the beginning: a parser joins a tag and the frame that follows."""
    for _ in range(_MAX_TAGS):
        if data.startswith(b"ID3") and len(data) >= _ID3V2_HEADER:
            data = data[id3v2_size(data) :]
        elif data.startswith(b"TAG"):
            data = data[_ID3V1_BYTES:]
        elif data.startswith(b"APETAGEX") and len(data) >= _APE_FOOTER:
            has_items = data[23] & 0x20  # this is the header, not the footer
            data = data[_APE_FOOTER + (int.from_bytes(data[12:16], "little") if has_items else 0) :]
        else:
            break
    return b"" if is_tag(data) else data


def audio_start(file: BinaryIO) -> int:
    """The first byte after all ID3v2 tags at the start."""
    start = 0
    for _ in range(_MAX_TAGS):
        file.seek(start)
        header = file.read(_ID3V2_HEADER)
        if header[:3] != b"ID3" or len(header) < _ID3V2_HEADER:
            break
        start += id3v2_size(header)
    return start


def without_leading_tags(file: BinaryIO) -> BinaryIO:
    """The file without ID3v2 tags at its start, if a format follows to which they do not belong.

    Some programs write such a tag in front of any file, as if it were an MP3, and FFmpeg then does not know the format.
    FFmpeg itself skips and reads the tags of MP3, ADTS and FLAC files.
    """
    start = audio_start(file)
    file.seek(start)
    head = file.read(8)
    foreign = start and (head.startswith(_NOT_AFTER_ID3) or head[4:] == b"ftyp")
    file.seek(0)
    return cast(BinaryIO, FileView(file, start)) if foreign else file


def id3v2_size(header: bytes) -> int:
    """The size of an ID3v2 tag, of which ``header`` is the beginning, with its header and footer."""
    return _ID3V2_HEADER + syncsafe(header[6:10]) + (_ID3V2_HEADER if header[5] & 0x10 else 0)


def syncsafe(data: bytes) -> int:
    """A number of seven bits a byte, as ID3v2 writes sizes."""
    number = 0
    for byte in data:
        number = number << 7 | byte & 0x7F
    return number


def audio_end(file: BinaryIO) -> int:
    """The first byte of all tags at the end; the size of the file if there are none."""
    end = file.seek(0, 2)
    for _ in range(_MAX_TAGS):
        start = _tag_before(file, end)
        if start is None:
            break
        end = start
    return end


def ape_items(file: BinaryIO) -> tuple[int, int] | None:
    """The first byte of the items of the APE tag at the end of a file, and the byte after them; None without a tag."""
    end = file.seek(0, 2)
    for _ in range(_MAX_TAGS):
        start = _tag_before(file, end)
        if start is None:
            return None
        file.seek(end - _APE_FOOTER)
        footer = file.read(_APE_FOOTER)
        if footer[:8] == b"APETAGEX":
            return end - int.from_bytes(footer[12:16], "little"), end - _APE_FOOTER
        end = start
    return None


def _tag_before(file: BinaryIO, end: int) -> int | None:
    """The first byte of the tag that ends at ``end``; None if there is none."""
    if end >= _ID3V1_BYTES:
        file.seek(end - _ID3V1_BYTES)
        if file.read(3) == b"TAG":
            return end - _ID3V1_BYTES
    if end >= _APE_FOOTER:
        file.seek(end - _APE_FOOTER)
        footer = file.read(_APE_FOOTER)
        if footer[:8] == b"APETAGEX":
            size = int.from_bytes(footer[12:16], "little")  # without the header, with the footer
            has_header = footer[23] & 0x80
            return _inside(end - size - (_APE_FOOTER if has_header else 0), end)
    if end >= 15:
        file.seek(end - 15)
        footer = file.read(15)
        if footer[6:] == _LYRICS_END and footer[:6].isdigit():
            return _inside(end - 15 - int(footer[:6]), end)
    if end >= _ID3V2_HEADER:
        file.seek(end - _ID3V2_HEADER)
        footer = file.read(_ID3V2_HEADER)
        if footer[:3] == b"3DI":  # ID3v2.4 at the end
            return _inside(end - id3v2_size(footer), end)
    return None


def _inside(start: int, end: int) -> int | None:
    return start if 0 <= start < end else None
