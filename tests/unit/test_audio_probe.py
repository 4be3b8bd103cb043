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
