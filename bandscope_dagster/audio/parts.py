"""The parts of an upload that are decoded on their own: the links of a chained Ogg file, or the whole file."""

from dataclasses import dataclass
from typing import BinaryIO, cast

from av.audio.stream import AudioStream
from av.container import InputContainer

from bandscope_dagster.audio.file_view import FileView
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.audio.foreign_tags import audio_end
from bandscope_dagster.audio.ogg import read_links
from bandscope_dagster.errors import Reason, SongRejected

_WITH_SIZES = (b"RIFF", b"RF64", b"FORM", b"caff", b"riff", b"\x1aE\xdf\xa3", b"0&\xb2u")  # tags are chunks


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is decoded on its own."""

    file: BinaryIO
    end: int  # byte after the audio, where tags begin
    lost_pages: bool = False
    last_position: int | None = None  # Ogg: at the end of the audio, in samples
    first_position: int = 0  # Ogg: at the end of the first page with audio, in samples


def parts_of(file: BinaryIO, findings: Findings) -> list[Part]:
    """The parts, in order. Raises :class:`SongRejected` if an Ogg file is cut."""
    file.seek(0)
    head = file.read(4)
    if head != b"OggS":
        size = file.seek(0, 2)
        end = size if head in _WITH_SIZES else audio_end(file)
        # Without the tags at the end: parsers would take them for a part of the last frame.
        return [Part(file if end == size else cast(BinaryIO, FileView(file, 0, end)), end)]
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
            link.last_position,
            link.first_position,
        )
        for link in found.links
    ]


def record_choice(container: InputContainer, stream: AudioStream, findings: Findings) -> None:
    """Record which of the file's audio streams is decoded."""
    streams = container.streams.audio
    findings.microsoft_order = container.format.name in ("wav", "w64")
    findings.audio_streams = len(streams)
    findings.audio_stream = 1 + next(n for n, each in enumerate(streams) if each.index == stream.index)
