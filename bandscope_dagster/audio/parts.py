"""The parts of an upload that are decoded on their own: the links of a chained Ogg file, or the whole file."""

from dataclasses import dataclass
from typing import BinaryIO, cast

from av.audio.stream import AudioStream
from av.container import InputContainer

from bandscope_dagster.audio.asf import AsfFile, read_asf
from bandscope_dagster.audio.file_view import FileView
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.foreign_tags import audio_end
from bandscope_dagster.audio.ogg import read_links
from bandscope_dagster.errors import Reason, SongRejected

_INDEX_SHARE = 0.02  # of the bytes; indexes and tags at the end of Matroska are smaller
_WITH_SIZES = (b"RIFF", b"RF64", b"FORM", b"caff", b"riff", b"\x1aE\xdf\xa3", b"0&\xb2u")  # tags are chunks


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is decoded on its own."""

    file: BinaryIO
    end: int  # byte after the audio, where tags begin
    lost_pages: bool = False  # Ogg
    asf: AsfFile | None = None
    last_position: int | None = None  # Ogg: at the end of the audio, in samples
    first_position: int = 0  # Ogg: at the end of the first page with audio, in samples

    @property
    def damaged(self) -> bool:
        """True if its structure tells that something is lost."""
        return self.lost_pages or (self.asf is not None and self.asf.lost_bytes() > 0)

    def unread_share(self, position: int) -> float:
        """The bytes that are left or damaged after ``position``, as a share of those before it."""
        if self.asf is not None:
            return self.asf.lost_bytes(position) / position
        share = (self.end - position) / position
        return share if share > _INDEX_SHARE else 0.0


def parts_of(file: BinaryIO, findings: Findings) -> list[Part]:
    """The parts, in order. Raises :class:`SongRejected` if an Ogg file is cut."""
    file.seek(0)
    head = file.read(4)
    if head != b"OggS":
        size = file.seek(0, 2)
        end = size if head in _WITH_SIZES else audio_end(file)
        asf = read_asf(file)
        if asf is not None and asf.cut:
            findings.note("the file ends in the middle of a packet")
        # Without the tags at the end: parsers would take them for a part of the last frame.
        return [Part(file if end == size else cast(BinaryIO, FileView(file, 0, end)), end, asf=asf)]
    found = read_links(file)
    if found.ends_inside and found.links and not found.links[-1].ended:
        raise SongRejected(
            Reason.TRUNCATED,
            "the last Ogg page of the file is cut, and is not the end of the stream; upload it again",
        )
    if found.ends_inside:
        findings.note("the file ends in the middle of an Ogg page")
    if not all(link.ended for link in found.links):
        findings.note("the end-of-stream flag is missing: the end may be missing")
    if not found.links:
        return [Part(file, audio_end(file))]
    alone = len(found.links) == 1
    return [
        Part(
            file if alone else cast(BinaryIO, FileView(file, link.start, link.end)),
            audio_end(file) if alone else link.end - link.start,
            link.lost_pages,
            last_position=link.last_position,
            first_position=link.first_position,
        )
        for link in found.links
    ]


def record_choice(container: InputContainer, stream: AudioStream, findings: Findings) -> None:
    """Record which of the file's audio streams is decoded."""
    streams = container.streams.audio
    findings.microsoft_order = container.format.name in ("wav", "w64")
    findings.audio_streams = len(streams)
    findings.audio_stream = 1 + next(n for n, each in enumerate(streams) if each.index == stream.index)
