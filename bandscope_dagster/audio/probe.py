"""The metadata of an upload, read from its headers without decoding: format, length, tags."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from av.container import InputContainer
from av.stream import Disposition

from bandscope_dagster.audio.container import open_audio
from bandscope_dagster.audio.foreign_tags import without_leading_tags
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.audio.stated import header_duration
from bandscope_dagster.audio.text_tags import Text, ape_texts, id3v2_texts
from bandscope_dagster.errors import Reason, SongRejected

_MAX_CHARACTERS = 500  # of a tag
_SEPARATOR = ";"  # between the values of a tag: FFmpeg's, for Vorbis comments
_CYRILLIC_LETTERS = 4  # in words without ASCII letters
_NAMES = ("title", "artist", "album", "genre")


@dataclass(frozen=True, slots=True)
class Probe:
    """The metadata in the headers. It may be wrong: only decoding proves it."""

    container: str  # FFmpeg's name, as "mp3" or "mov,mp4,m4a,3gp,3g2,mj2"
    codec: str  # FFmpeg's name of the codec, not of its decoder, as "mp3" or "pcm_s16le"
    sample_rate: int  # Hz
    channels: int
    bit_rate: int | None  # bits per second
    duration_s: float | None  # None if the file does not state it
    title: str | None
    artist: str | None
    album: str | None
    genre: str | None


def probe(file: BinaryIO, limits: Limits) -> Probe:
    """Read the headers of an open file. Raises :class:`SongRejected` if it can never be a song."""
    size = file.seek(0, 2)
    if size > limits.max_bytes:
        raise SongRejected(
            Reason.TOO_LARGE, f"the file has {size:,} bytes; the limit is {limits.max_bytes:,}"
        )
    whole, file = file, without_leading_tags(file)
    with open_audio(file) as (container, stream):
        check_format(stream.sample_rate, stream.channels, limits)
        duration = header_duration(file, container, stream)
        if duration is not None and duration > limits.max_duration_s:
            raise SongRejected(
                Reason.TOO_LONG,
                f"its header states a length of {duration:.0f} s; the limit is {limits.max_duration_s:.0f} s",
            )
        # In Ogg, the stream has the tags; in all other formats, the file has them.
        tags = {key.lower(): value for key, value in (stream.metadata | container.metadata).items()}
        _check_extras(tags, container, limits)
        id3v2 = id3v2_texts(whole)
        tags |= _further_texts(whole, tags, id3v2, container.format.name)
        return Probe(
            container=container.format.name,
            codec=stream.codec_context.codec.canonical_name,
            sample_rate=stream.sample_rate,
            channels=stream.channels,
            bit_rate=stream.bit_rate or container.bit_rate or None,
            duration_s=duration,
            **_lines(tags, [name for name, text in id3v2.items() if text.latin_1]),
        )


def _further_texts(
    file: BinaryIO, tags: Mapping[str, str], id3v2: Mapping[str, Text], container: str
) -> dict[str, str]:
    """The tags that FFmpeg reads only in part, or not at all.

    ID3v2 comes before APEv2, and that before ID3v1, whose texts have at most 30 characters.
    """
    texts = {
        name: _SEPARATOR.join([tags.get(name) or text.values[0], *text.values[1:]])
        for name, text in id3v2.items()
        if len(text.values) > 1
    }
    if container in ("mp3", "aac"):
        ape = {name: _SEPARATOR.join(values) for name, values in ape_texts(file).items() if values}
        texts |= {name: text for name, text in ape.items() if name not in id3v2}
    return texts


def _check_extras(tags: Mapping[str, str], container: InputContainer, limits: Limits) -> None:
    """Raise :class:`SongRejected` if the tags or a picture in the file exceed their limits."""
    size = sum(len(text.encode("utf-8", "surrogateescape")) for tag in tags.items() for text in tag)
    if size > limits.max_tag_bytes:
        raise SongRejected(
            Reason.TOO_LARGE,
            f"its tags have {size:,} bytes; the limit is {limits.max_tag_bytes:,}: save it without tags",
        )
    pictures = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
    for picture in pictures:
        packet = next(container.demux(picture), None)  # FFmpeg read it with the headers
        if packet is not None and packet.size > limits.max_picture_bytes:
            raise SongRejected(
                Reason.TOO_LARGE,
                f"a picture in it has {packet.size:,} bytes; the limit is {limits.max_picture_bytes:,}:"
                " save it with a smaller picture",
            )


def check_format(sample_rate: int, channels: int, limits: Limits) -> None:
    """Raise :class:`SongRejected` for a sample rate (Hz) or a channel count outside the limits."""
    if sample_rate == 0 or channels == 0:
        raise SongRejected(Reason.NOT_AUDIO, "the file looks like audio, but nothing in it can be decoded")
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        raise SongRejected(
            Reason.UNSUPPORTED_FORMAT,
            f"the sample rate is {sample_rate} Hz; it must be from {limits.min_sample_rate} to"
            f" {limits.max_sample_rate} Hz",
        )
    if channels > limits.max_channels:
        raise SongRejected(
            Reason.UNSUPPORTED_FORMAT,
            f"the file has {channels} channels; the limit is {limits.max_channels}",
        )


def _lines(tags: Mapping[str, str], latin_1: Collection[str]) -> dict[str, str | None]:
    """Each of ``_NAMES`` → the tag as one line of printable text in NFC; None if there is none.

    ``latin_1`` has the names of the tags that say that they are Latin-1.
    """
    texts = {name: tags.get(name, "") for name in _NAMES}
    unsure = {
        name: data for name, text in texts.items() if (data := _without_encoding(text, name in latin_1))
    }
    encoding = _code_page(b" ".join(unsure.values()))
    texts |= {name: data.decode(encoding, "replace") for name, data in unsure.items()}
    return {name: printable_line(text) for name, text in texts.items()}


def _without_encoding(text: str, latin_1: bool) -> bytes | None:
    """The bytes of a text whose encoding is not sure; None if it is.

    RIFF INFO and ID3v1 state none, and ID3v2 is often written with Latin-1 as a wrong one.
    """
    if any("\udc80" <= character <= "\udcff" for character in text):
        return text.encode("utf-8", "surrogateescape")
    return text.encode("latin-1") if latin_1 and text and max(text) <= "\xff" else None


def _code_page(data: bytes) -> str:
    """The Western or the Cyrillic code page of Windows, which most programs write.

    In Western languages, words with letters above ASCII have ASCII letters too.
    """
    words = re.findall(r"[A-Za-zÀ-ÿ]+", data.decode("latin-1"))
    above = [word for word in words if not word.isascii()]
    mixed = any(re.search("[A-Za-z]", word) for word in above)
    return "cp1251" if not mixed and sum(map(len, above)) >= _CYRILLIC_LETTERS else "cp1252"


def printable_line(text: str) -> str | None:
    """Untrusted text as one line in NFC: no control characters, at most 500 characters; None if nothing is left."""
    text = unicodedata.normalize("NFC", text[: 4 * _MAX_CHARACTERS])
    printable = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join(printable.split())[:_MAX_CHARACTERS].rstrip() or None
