"""The pages of an Ogg file (RFC 3533): its links, and whether pages or its end are missing."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from bandscope_dagster.audio.foreign_tags import audio_end

_HEADER: Final = 27  # bytes
_BEGIN, _END = 0x02, 0x04
_SEARCHED: Final = 1 << 16  # bytes at a time, in search of the next page
_MAX_LINKS: Final = 10_000
# The beginning of each stream's first packet: damage can set the flag of a first page.
_AUDIO: Final = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")
_OTHERS: Final = (
    *(b"Speex   ", b"fishead\0", b"\x80theora", b"BBCD\0", b"\x80kate", b"CMML", b"PCM     ", b"OVP80"),
)


@dataclass(slots=True)
class Link:
    """One of the chained streams of a file, or a group of streams that are multiplexed."""

    start: int  # byte
    end: int
    ended: bool = False  # True if its last page has the end-of-stream flag
    lost_pages: bool = False  # True if a page number is missing, or bytes between pages are no page
    numbers: dict[int, int] = field(default_factory=dict[int, int])  # serial number → the last page number
    audio: dict[int, int] = field(
        default_factory=dict[int, int]
    )  # serial number → the last position, in samples
    first_position: int = 0  # at the end of the first page with audio

    @property
    def last_position(self) -> int | None:
        """The position at the end of the only audio stream, in samples; None if there are several."""
        return next(iter(self.audio.values())) if len(self.audio) == 1 else None


@dataclass(frozen=True, slots=True)
class Links:
    """All links of a file, in order."""

    links: list[Link]
    ends_inside: bool  # True if the file ends in the middle of a page


def read_links(file: BinaryIO) -> Links:
    """Read the headers of all pages. A link begins where streams begin after the pages of other streams."""
    links: list[Link] = []
    end = audio_end(file)
    expected = 0
    beginning = False
    ends_inside = False
    for page in _pages(file, end):
        if page.end > end:
            ends_inside = True
            break
        first = _first_bytes(file, page) if page.flags & _BEGIN else b""
        begins = first.startswith(_AUDIO + _OTHERS)
        if not links or (begins and not beginning and len(links) < _MAX_LINKS):
            if links:
                links[-1].end = page.start
            links.append(Link(page.start, end))
        beginning = begins
        link = links[-1]
        if first.startswith(_AUDIO):
            link.audio[page.serial] = 0
        if page.serial in link.audio and page.position < 2**63:
            link.audio[page.serial] = page.position
            link.first_position = link.first_position or page.position
        before = link.numbers.get(page.serial)
        if page.start != expected or (before is not None and page.number != (before + 1) % 2**32):
            link.lost_pages = True
        link.numbers[page.serial] = page.number
        link.ended = bool(page.flags & _END)
        expected = page.end
    else:
        ends_inside = expected < end
    return Links(links, ends_inside)


def _first_bytes(file: BinaryIO, page: "_Page") -> bytes:
    file.seek(page.body)
    return file.read(8)


@dataclass(frozen=True, slots=True)
class _Page:
    start: int
    body: int  # first byte after the header
    end: int  # may be after the end of the file
    flags: int
    position: int  # after the page's last packet, in samples; 2⁶⁴ − 1 if no packet ends in it
    serial: int
    number: int


def _pages(file: BinaryIO, end: int) -> Iterator[_Page]:
    position = 0
    while position < end:
        file.seek(position)
        header = file.read(_HEADER)
        if header[:5] != b"OggS\0" or len(header) < _HEADER:
            if header[:4] == b"OggS" and len(header) < _HEADER:
                yield _Page(position, position, end + 1, 0, 0, 0, 0)
                return
            found = _find_page(file, position + 1, end)
            if found is None:
                return
            position = found
            continue
        sizes = file.read(header[26])
        after = position + _HEADER + header[26] + sum(sizes)
        page = _Page(
            position,
            position + _HEADER + header[26],
            after if len(sizes) == header[26] else end + 1,
            header[5],
            int.from_bytes(header[6:14], "little"),
            int.from_bytes(header[14:18], "little"),
            int.from_bytes(header[18:22], "little"),
        )
        yield page
        position = after


def _find_page(file: BinaryIO, position: int, end: int) -> int | None:
    while position < end:
        file.seek(position)
        data = file.read(_SEARCHED + 4)
        at = data.find(b"OggS\0")
        if at >= 0:
            return position + at
        position += _SEARCHED
    return None
