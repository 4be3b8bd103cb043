import dataclasses
import io
import socket
import struct
import tempfile

import numpy as np
import pytest
from audio_files import ENCODERS, LIMITS, encode, encode_soundfile, encoded, excerpt, stempeg_song

from bandscope_dagster.audio.probe import probe
from bandscope_dagster.errors import Reason, SongRejected

TAGS = {"title": "Wörld", "artist": "Ann & Ben", "album": "Third", "genre": "Techno"}


def rejection(data, limits=LIMITS):
    with pytest.raises(SongRejected) as caught:
        probe(io.BytesIO(data), limits)
    return caught.value


@pytest.fixture
def server():
    """A listening socket that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def was_called(server):
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def wav(frames, rate=44_100, channels=2):
    return encode_soundfile(np.zeros((channels, frames), np.float32), rate, format="WAV", subtype="PCM_16")


@pytest.mark.parametrize("name", ENCODERS)
def test_every_format_states_its_codec_rate_and_channels(name):
    found = probe(io.BytesIO(encoded(name)), LIMITS)
    _, encoder, rate = ENCODERS[name]
    codec = {"libmp3lame": "mp3", "libopus": "opus", "vorbis by libsndfile": "vorbis"}.get(encoder, encoder)
    assert (found.codec, found.sample_rate, found.channels) == (codec, rate, 2)
    assert found.bit_rate > 100_000
    if name in ("mp3_without_xing", "adts"):
        assert found.duration_s is None  # these files do not state their length
    else:
        assert found.duration_s == pytest.approx(268_288 / 44_100, abs=0.01)


def test_the_first_audio_stream_of_a_stem_file_is_taken():
    found = probe(io.BytesIO(stempeg_song()), LIMITS)
    assert (found.codec, found.sample_rate, found.channels) == ("aac", 44_100, 2)


@pytest.mark.parametrize("name", ["mp3", "flac", "m4a_aac", "opus", "wma", "aiff", "matroska", "wav16"])
def test_tags_are_read_from_every_kind_of_file(name):
    muxer, encoder, rate = ENCODERS[name]
    options = {"write_id3v2": "1"} if muxer == "aiff" else {}
    found = probe(
        io.BytesIO(encode(excerpt(), muxer, encoder, rate=rate, tags=TAGS, options=options)), LIMITS
    )
    assert {key: getattr(found, key) for key in TAGS} == TAGS


def test_tags_are_one_line_of_printable_text_of_bounded_length():
    tags = {"title": "a\u0301\r\n\x1b[31mb\u202e\x00c", "artist": "x" * 100_000, "album": " \t ", "genre": ""}
    found = probe(io.BytesIO(encode(excerpt(), "flac", "flac", tags=tags)), LIMITS)
    assert found.title == "á [31mb"  # FFmpeg ends a tag at its first NUL
    assert found.artist == "x" * 500
    assert found.album is None
    assert found.genre is None


def test_tags_without_a_stated_encoding_are_read_as_windows_writes_them():
    info = b"INFOINAM" + struct.pack("<I", 4) + "Mötö"[:4].encode("cp1252")
    data = wav(1000) + b"LIST" + struct.pack("<I", len(info)) + info
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert probe(io.BytesIO(data), LIMITS).title == "Mötö"


def id3v2(*frames: bytes, version: int = 4, flags: int = 0, ahead: bytes = b"") -> bytes:
    """A tag; each frame is its name, a colon, two bytes of flags, and its text."""

    def size(number: int) -> bytes:
        return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))

    parts = [
        name + (size(len(data) - 2) if version == 4 else struct.pack(">I", len(data) - 2)) + data
        for name, data in (frame.split(b":", 1) for frame in frames)
    ]
    body = ahead + b"".join(parts)
    return b"ID3" + bytes([version, 0, flags]) + size(len(body)) + body


def ape(**texts: bytes) -> bytes:
    """A tag with a header, and a picture as its first item."""
    items = [
        b"Cover Art (Front)\0" + b"\xff" * 70_000,
        *(f"{name}\0".encode() + text for name, text in texts.items()),
    ]
    body = b"".join(
        struct.pack("<II", len(item.partition(b"\0")[2]), 2 if item.startswith(b"Cover") else 0) + item
        for item in items
    )
    fields = struct.pack("<III", 2000, len(body) + 32, len(items))
    header, footer = (
        b"APETAGEX" + fields + struct.pack("<I", flags) + bytes(8) for flags in (0xA0000000, 0x80000000)
    )
    return header + body + footer


def id3v1(title: bytes, artist: bytes) -> bytes:
    return b"TAG" + title.ljust(30, b"\0") + artist.ljust(30, b"\0") + bytes(65)


def bare_mp3() -> bytes:
    """An MP3 without any tag."""
    data = encoded("mp3_without_xing")
    return data[data.index(b"\xff\xfb") :]


UTF16 = "Ann\0Bé".encode("utf-16")
NO_FLAGS = b"\0\0"


@pytest.mark.parametrize(
    ("tag", "artist"),
    [
        (id3v2(b"TPE1:" + NO_FLAGS + b"\3Ann\0B\xc3\xa9"), "Ann;Bé"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\3Ann\0B\xc3\xa9\0"), "Ann;Bé"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\1" + UTF16), "Ann;Bé"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\1" + UTF16, version=3), "Ann;Bé"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\1" + "Ann\0".encode("utf-16") + "Bé".encode("utf-16")), "Ann;Bé"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\2" + "Ann\0Bé".encode("utf-16-be")), "Ann;Bé"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\0Ann\0B\xe9\0Cy"), "Ann;Bé;Cy"),
        (id3v2(b"TIT2:" + NO_FLAGS + b"\3x", b"TPE1:" + NO_FLAGS + b"\3Ann\0Cy"), "Ann;Cy"),
        (id3v2(b"TPE1:\0\1\0\0\0\7\3Ann\0Cy"), "Ann;Cy"),  # the length of the data is stated
        (id3v2(b"TPE1:" + NO_FLAGS + b"\3Ann\0Cy", flags=0x40, ahead=b"\0\0\0\6\1\0"), "Ann;Cy"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\3Ann"), "Ann"),
        (id3v2(b"TPE1:" + NO_FLAGS + b"\3AC/DC"), "AC/DC"),
    ],
)
def test_all_artists_of_an_id3v2_tag_are_read(tag: bytes, artist: str) -> None:
    assert probe(io.BytesIO(tag + bare_mp3()), LIMITS).artist == artist


@pytest.mark.parametrize("name", ["wav16", "aiff"])
def test_all_artists_of_a_tag_in_a_chunk_are_read(name: str) -> None:
    tag = id3v2(b"TPE1:" + NO_FLAGS + b"\3Ann\0Cy")
    tag += bytes(len(tag) % 2)
    data = encoded(name)
    order, chunk = ("<I", b"id3 ") if name == "wav16" else (">I", b"ID3 ")
    data += chunk + struct.pack(order, len(tag)) + tag
    data = data[:4] + struct.pack(order, len(data) - 8) + data[8:]
    assert probe(io.BytesIO(data), LIMITS).artist == "Ann;Cy"


def test_ape_tags_of_an_mp3_are_read() -> None:
    tag = ape(Title="Wörld".encode(), ARTIST=b"Ann\0Cy", Album=b"Third", Genre=b"Techno", Year=b"2026")
    found = probe(io.BytesIO(bare_mp3() + tag), LIMITS)
    assert (found.title, found.artist, found.album, found.genre) == ("Wörld", "Ann;Cy", "Third", "Techno")


def test_id3v2_comes_before_ape_and_ape_before_id3v1() -> None:
    end = ape(Title=b"A title of more than thirty characters") + id3v1(
        b"A title of more than thirty ch", b"Ann"
    )
    found = probe(io.BytesIO(bare_mp3() + end), LIMITS)
    assert (found.title, found.artist) == ("A title of more than thirty characters", "Ann")
    tag = id3v2(b"TIT2:" + NO_FLAGS + b"\3First")
    found = probe(io.BytesIO(tag + bare_mp3() + end), LIMITS)
    assert found.title == "First"


@pytest.mark.parametrize("cut", [4, 40, 70_060, 70_075])
def test_a_damaged_ape_tag_is_no_defect(cut: int) -> None:
    tag = ape(Title=b"One", Artist=b"Two")
    for damaged in (tag[:cut] + b"\xff\xff\xff\xff" + tag[cut + 4 :], tag[:cut] + tag[cut + 4 :]):
        found = probe(io.BytesIO(bare_mp3() + damaged), LIMITS)
        assert found.codec == "mp3" and found.title in (None, "One")


@pytest.mark.parametrize(
    ("title", "artist", "expected"),
    [
        ("Группа крови", "Кино", ("Группа крови", "Кино")),
        ("Мы", "Ночные Снайперы", ("Мы", "Ночные Снайперы")),
        ("Live", "Кино", ("Live", "Кино")),
    ],
)
@pytest.mark.parametrize("place", ["id3v1", "id3v2", "riff"])
def test_cyrillic_without_a_stated_encoding_is_read(
    title: str, artist: str, expected: tuple[str, str], place: str
) -> None:
    first, second = title.encode("cp1251"), artist.encode("cp1251")
    if place == "id3v1":
        data = bare_mp3() + id3v1(first, second)
    elif place == "id3v2":
        data = id3v2(b"TIT2:" + NO_FLAGS + b"\0" + first, b"TPE1:" + NO_FLAGS + b"\0" + second) + bare_mp3()
    else:
        entries = b"".join(
            name + struct.pack("<I", len(text)) + text + bytes(len(text) % 2)
            for name, text in ((b"INAM", first), (b"IART", second))
        )
        data = wav(1000) + b"LIST" + struct.pack("<I", len(entries) + 4) + b"INFO" + entries
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    found = probe(io.BytesIO(data), LIMITS)
    assert (found.title, found.artist) == expected


@pytest.mark.parametrize(
    "text", ["Beyoncé", "À la fête", "Für Élise", "Þú og ég", "Déjà vu", "ÄÖÜ", "Don\u2019t", "Ñu"]
)
def test_western_text_stays_what_it_is(text: str) -> None:
    data = id3v2(b"TIT2:" + NO_FLAGS + b"\0" + text.encode("cp1252")) + bare_mp3()
    assert probe(io.BytesIO(data), LIMITS).title == text
    data = id3v2(b"TIT2:" + NO_FLAGS + b"\3" + text.encode()) + bare_mp3()
    assert probe(io.BytesIO(data), LIMITS).title == text


@pytest.mark.parametrize("name", ["flac", "m4a_aac", "opus", "matroska"])
def test_text_with_a_stated_encoding_is_never_guessed(name: str) -> None:
    muxer, encoder, rate = ENCODERS[name]
    tags = {"title": "\u00c6\u00d8\u00c5", "artist": "\u00d6\u00f6\u00d6\u00f6"}
    found = probe(io.BytesIO(encode(excerpt(), muxer, encoder, rate=rate, tags=tags)), LIMITS)
    assert (found.title, found.artist) == (tags["title"], tags["artist"])
    data = id3v2(b"TIT2:" + NO_FLAGS + b"\3" + tags["title"].encode() + b"\0" + tags["artist"].encode())
    assert probe(io.BytesIO(data + bare_mp3()), LIMITS).title == ";".join(tags.values())


def test_an_empty_file_is_rejected_as_empty():
    assert rejection(b"").reason == Reason.EMPTY


@pytest.mark.parametrize(
    "data",
    [b"these are the lyrics, not the song\n" * 500, bytes(100_000), np.random.default_rng(1).bytes(100_000)],
    ids=["text", "zeros", "noise"],
)
def test_a_file_without_audio_is_rejected_as_not_audio(data):
    assert rejection(data).reason == Reason.NOT_AUDIO


def test_a_video_without_sound_has_no_audio_stream():
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)]:
            container.mux(packet)
    assert rejection(file.getvalue()).reason == Reason.NO_AUDIO_STREAM


def test_limits_are_checked_before_anything_is_decoded():
    strict = dataclasses.replace(LIMITS, max_bytes=5000, max_duration_s=0.1)
    assert rejection(wav(3000), strict).reason == Reason.TOO_LARGE
    assert (
        rejection(encoded("mp3"), dataclasses.replace(LIMITS, max_duration_s=6.0)).reason == Reason.TOO_LONG
    )
    assert rejection(wav(3000, rate=768_000)).reason == Reason.UNSUPPORTED_FORMAT
    assert rejection(wav(3000, rate=100)).reason == Reason.UNSUPPORTED_FORMAT
    assert rejection(wav(3000, channels=9)).reason == Reason.UNSUPPORTED_FORMAT


def test_a_flac_that_claims_days_of_audio_is_rejected_by_its_header():
    data = bytearray(encoded("flac"))
    streaminfo = data.index(b"fLaC") + 8
    data[streaminfo + 13] |= 0x0F  # the upper four of the 36 bits that count samples
    assert rejection(bytes(data)).reason == Reason.TOO_LONG


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile {target}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
        "[playlist]\nFile1={target}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        '<AdaptationSet mimeType="audio/mp4"><Representation id="1">'
        "<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    ],
    ids=["concat", "hls", "pls", "sdp", "dash"],
)
def test_a_playlist_named_mp3_is_refused_and_nothing_else_is_opened(playlist, tmp_path, server):
    other = tmp_path / "other.wav"
    other.write_bytes(wav(44_100))
    for target in (
        "other.wav",
        str(other),
        other.as_uri(),
        f"http://127.0.0.1:{server.getsockname()[1]}/song.mp3",
    ):
        upload = tmp_path / "song.mp3"
        upload.write_text(playlist.format(target=target))
        with upload.open("rb") as file, pytest.raises(SongRejected) as caught:
            probe(file, LIMITS)
        assert caught.value.reason == Reason.NOT_AUDIO
    assert not was_called(server)


def test_a_movie_that_refers_to_another_file_does_not_open_it(server):
    """A data reference of QuickTime may name another file; flags of 1 mean this file."""
    reference = f"http://127.0.0.1:{server.getsockname()[1]}/song.mov".encode() + b"\0"
    hostile = bytearray(encoded("m4a_aac"))
    here = hostile.index(b"url \0\0\0\1")
    hostile[here + 4 : here + 8] = bytes(4) + reference
    for atom in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url "):
        size = hostile.rindex(atom, 0, here + 4) - 4
        struct.pack_into(">I", hostile, size, struct.unpack_from(">I", hostile, size)[0] + len(reference))
    assert probe(io.BytesIO(hostile), LIMITS).codec == "aac"  # the file is complete, apart from the reference
    assert not was_called(server)


def test_ffmpeg_is_silent_and_the_file_stays_open(capfd):
    broken = encoded("mp3")[:20_000] + bytes(20_000)
    with tempfile.TemporaryFile() as file:
        file.write(broken)
        probe(file, LIMITS)
        assert not file.closed
    assert capfd.readouterr() == ("", "")


def test_storage_errors_are_not_blamed_on_the_song():
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 10_000:
                raise OSError(5, "the disk is gone")
            return super().read(size)

    with pytest.raises(OSError, match="the disk is gone"):
        probe(Failing(encoded("wav16") + bytes(10)), LIMITS)
