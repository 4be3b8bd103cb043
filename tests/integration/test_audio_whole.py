"""A song that is ok is all the audio that there is, and no file that every player plays is refused.

The frames that are expected are those of an independent decoder: libsndfile, opusdec, wvunpack or ffmpeg.
"""

import io
import re
import struct
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from audio_files import LIMITS, encode, encode_soundfile, encoded, excerpt, lag, snr_db
from audio_shapes import FORMATS, base, converted, ffmpeg, source, starting_late, with_video

from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.findings import Findings
from bandscope_dagster.errors import Reason, SongRejected

RATE = 44_100


def heard(data: bytes) -> tuple[np.ndarray, Findings]:
    """The decoded song, and what was found about it."""
    found = Findings()
    return np.concatenate(list(decode(io.BytesIO(data), LIMITS, found)), axis=1), found


def rejection(data: bytes) -> SongRejected:
    with pytest.raises(SongRejected) as caught:
        heard(data)
    return caught.value


def wav(audio: np.ndarray, subtype: str = "PCM_16") -> bytes:
    return encode_soundfile(audio, RATE, format="WAV", subtype=subtype)


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)[None].astype(np.float32) / 2


def pitch(audio: np.ndarray) -> float:
    """The frequency with the most energy, in Hz."""
    spectrum = np.abs(np.fft.rfft(audio[0, RATE // 2 : RATE // 2 + RATE]))
    return float(spectrum.argmax())


# Chained Ogg: another rate, other channels, other lengths, another codec.


@pytest.mark.parametrize(
    "links",
    [
        (("ogg Vorbis", 2, 44_100), ("ogg Vorbis", 1, 22_050)),
        (("ogg Opus", 2, 48_000), ("ogg Opus", 1, 48_000), ("ogg Opus", 6, 48_000)),
        (("ogg Vorbis", 2, 44_100), ("ogg Vorbis", 2, 44_100), ("ogg Vorbis", 2, 44_100)),
        (("ogg Opus", 2, 48_000), ("ogg Vorbis", 2, 44_100), ("ogg FLAC", 1, 37_800)),
    ],
    ids=["rate and channels", "opus channels", "equal parameters", "codecs"],
)
def test_every_link_of_a_chained_ogg_file_is_heard(links: tuple[tuple[str, int, int], ...]) -> None:
    audio, found = heard(b"".join(base(*link) for link in links))
    assert audio.shape[1] == pytest.approx(3 * RATE * len(links), abs=len(links))
    assert found.warning is None


def test_a_link_that_cannot_be_decoded_is_told() -> None:
    broken = bytearray(base("ogg Vorbis"))
    comments = broken.index(b"\x03vorbis")
    broken[comments - 40 : comments + 40] = bytes(80)
    audio, found = heard(base("ogg Opus") + bytes(broken))
    assert audio.shape[1] == 3 * RATE
    assert found.warning is not None and "part 2 of 2" in found.warning


# Errors of the demuxer, and frames that a decoder still holds.


def test_a_tag_after_wavpack_costs_no_audio() -> None:
    audio, found = heard(base("wv") + b"TAG" + bytes(125))
    assert (audio.shape[1], found.warning) == (3 * RATE, None)


def test_a_cut_wavpack_file_is_truncated() -> None:
    assert rejection(base("wv")[: len(base("wv")) * 2 // 3]).reason is Reason.TRUNCATED


# Damage inside: silence in its place, so that what follows keeps its time.


@pytest.mark.parametrize("name", ["flac", "m4a ALAC", "m4a AAC", "adts", "mp3", "mp3 no Xing"])
def test_audio_behind_a_damaged_packet_keeps_its_place(name: str) -> None:
    plain = _long(name)
    whole, _ = heard(plain)
    data = bytearray(plain)
    data[len(data) // 2 : len(data) // 2 + 1000] = bytes(1000)
    audio, found = heard(bytes(data))
    assert found.warning is not None
    assert audio.shape[1] == pytest.approx(whole.shape[1], abs=1152)
    behind = slice(12 * RATE, 19 * RATE)
    assert lag(audio[:, behind], whole[:, behind]) == 0
    assert snr_db(audio[:, behind], whole[:, behind]) > 20  # AAC fills with noise, which differs
    assert np.abs(audio).max() <= 1.5 * np.abs(whole).max(), "no burst"


def _long(name: str, seconds: int = 20) -> bytes:
    """A file of a format."""
    _, muxer, encoder = FORMATS[name]
    song = wav(np.tile(excerpt(), 11)[:, : seconds * RATE])
    return converted(song, "wav", f"{encoder} -f {muxer}")


def _pages(data: bytes) -> list[int]:
    """The places of the pages of an Ogg file."""
    return [found.start() for found in re.finditer(b"OggS\0", data)]


def _packets(data: bytes) -> list[int]:
    """The places of the packets of a file that is not Ogg."""
    with av.open(io.BytesIO(data)) as container:
        return [packet.pos for packet in container.demux(container.streams.audio[0]) if packet.size]


@pytest.mark.parametrize(
    ("name", "frame"),  # the samples by which audio behind the damage may move: its place is known in frames
    [
        ("flac", 0),
        ("m4a ALAC", 0),
        ("m4a AAC", 1024),
        ("adts", 2048),
        ("mp3", 4 * 1152),
        ("mp3 no Xing", 4 * 1152),
    ],
)
def test_audio_behind_damage_at_the_beginning_keeps_its_place(name: str, frame: int) -> None:
    plain = _long(name)
    whole, _ = heard(plain)
    data = bytearray(plain)
    start = _packets(plain)[1]
    data[start : start + 1000] = np.random.default_rng(0).bytes(1000)
    audio, found = heard(bytes(data))
    assert found.warning is not None
    assert abs(audio.shape[1] - whole.shape[1]) <= frame
    behind = slice(12 * RATE, 19 * RATE)
    assert abs(lag(audio[:, behind], whole[:, behind])) <= frame


@pytest.mark.parametrize("name", ["ogg Vorbis", "ogg Opus"])
@pytest.mark.parametrize("page", [2, 3, 30])
def test_audio_behind_an_ogg_page_with_a_wrong_checksum_keeps_its_place(name: str, page: int) -> None:
    plain = _long(name, 60)
    whole, _ = heard(plain)
    data = bytearray(plain)
    data[_pages(plain)[page] + 300] ^= 0x10
    audio, found = heard(bytes(data))
    assert found.warning is not None and "of silence are in place of lost audio" in found.warning
    assert 0.1 < found.lost_s < 1.2
    assert audio.shape[1] == whole.shape[1]
    behind = slice(40 * RATE, 50 * RATE)
    assert lag(audio[:, behind], whole[:, behind]) == 0


def test_an_ogg_file_from_the_middle_of_a_broadcast_starts_at_once() -> None:
    """Its first time is that of the broadcast, also if a page is damaged."""
    plain = _long("ogg Opus", 60)
    pages = _pages(plain)
    data = bytearray(plain[: pages[2]] + plain[pages[20] :])
    data[_pages(bytes(data))[10] + 300] ^= 0x10
    assert "41.00 of 42.00 s can be decoded" in rejection(bytes(data)).message


def test_a_checksum_is_also_found_wrong_where_the_same_was_reported_before() -> None:
    """PyAV leaves out a message that is equal to the one before, as from the probe of the same file."""
    data = bytearray(_long("ogg Vorbis", 60))
    data[_pages(bytes(data))[2] + 300] ^= 0x10
    first, second = (heard(bytes(data))[1] for _ in range(2))
    assert first.warning == second.warning is not None


# ASF: FFmpeg skips damaged packets, often without a message. A packet of these files has 3,200 bytes.


def test_wma_without_its_first_packets_has_silence_in_their_place() -> None:
    plain = _long("wma 2")
    whole, _ = heard(plain)
    data = bytearray(plain)
    start = _packets(plain)[0]
    data[start : start + 3200] = bytes(3200)
    audio, found = heard(bytes(data))
    assert found.warning is not None and "of silence are in place of lost audio" in found.warning
    assert 0.05 < found.lost_s < 0.4
    assert abs(audio.shape[1] - whole.shape[1]) <= 0.05 * RATE
    behind = slice(12 * RATE, 19 * RATE)
    assert abs(lag(audio[:, behind], whole[:, behind])) <= 0.05 * RATE


@pytest.mark.parametrize("kind", ["alone", "cover", "video"])
def test_wma_whose_beginning_is_lost_has_a_warning_or_is_truncated(kind: str) -> None:
    data = _wma(kind)
    start = _packets(data)[6]
    for lost in (4000, 40_000):
        damaged = data[:start] + bytes(lost) + data[start + lost :]
        if lost == 4000:
            assert heard(damaged)[1].warning is not None
        else:
            assert rejection(damaged).reason is Reason.TRUNCATED


def test_wma_that_starts_late_without_damage_has_a_warning() -> None:
    late = converted(base("wma 2"), "wma", "-c copy -output_ts_offset 1 -f asf")
    _, found = heard(late)
    assert found.warning is not None and "its beginning may be missing" in found.warning


@cache
def _wma(kind: str) -> bytes:
    """A WMA file of 20 s: alone, with a cover (which ffmpeg writes as a video), with a video, or from a pipe."""
    song = wav(np.tile(excerpt(), 11)[:, : 20 * RATE])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song.wav"
        path.write_bytes(song)
        video = {
            "cover": ("testsrc=size=600x600:rate=10:duration=0.1", "-c:v mjpeg"),
            "video": ("testsrc=size=64x64:rate=10:duration=20", "-c:v msmpeg4"),
        }
        source_of_video, encoder = video.get(kind, ("", ""))
        inputs = ["-f", "lavfi", "-i", source_of_video] if source_of_video else []
        options = f"{encoder} -c:a wmav2 -b:a 192k -f asf".split()
        output = "pipe:1" if kind == "pipe" else str(Path(folder) / "song.wma")
        written = ffmpeg(*inputs, "-i", str(path), *options, output)
        return written or Path(output).read_bytes()


WMA = ("alone", "cover", "video", "pipe")


@pytest.mark.parametrize("kind", WMA)
def test_a_whole_wma_file_has_no_warning(kind: str) -> None:
    audio, found = heard(_wma(kind))
    assert audio.shape[1] == pytest.approx(20 * RATE, abs=0.06 * RATE)
    assert found.warning is None


@pytest.mark.parametrize("kind", WMA)
@pytest.mark.parametrize("fill", [bytes, np.random.default_rng(0).bytes], ids=["zeros", "random"])
@pytest.mark.parametrize("start", [0.2, 0.5, 0.9])
def test_a_wma_file_whose_end_is_overwritten_is_truncated(kind: str, fill, start: float) -> None:
    data = _wma(kind)
    keep = round(len(data) * start)
    error = rejection(data[:keep] + fill(len(data) - keep))
    assert error.reason is Reason.TRUNCATED


@pytest.mark.parametrize("kind", WMA)
@pytest.mark.parametrize("lost", [4000, 9000])
def test_a_wma_file_whose_last_packets_are_overwritten_has_a_warning(kind: str, lost: int) -> None:
    data = _wma(kind)
    index = (
        0 if kind != "video" else len(data) - data.rindex(bytes.fromhex("90080033b1e5cf1189f400a0c90349cb"))
    )
    whole, _ = heard(data)
    audio, found = heard(data[: len(data) - index - lost] + bytes(lost) + data[len(data) - index :])
    assert found.warning is not None
    assert audio.shape[1] < whole.shape[1]
    assert found.lost_s == pytest.approx((whole.shape[1] - audio.shape[1]) / RATE, abs=0.2)


@pytest.mark.parametrize("kind", WMA)
@pytest.mark.parametrize("place", [0.15, 0.4, 0.6, 0.8])
def test_a_hole_in_a_wma_file_is_a_loss_by_damage(kind: str, place: float) -> None:
    """5 % are rejected; 1 % is a warning, and what is behind keeps its place."""
    data = _wma(kind)
    start = round(len(data) * place)
    large, small = len(data) // 20, len(data) // 100
    assert rejection(data[:start] + bytes(large) + data[start + large :]).reason is Reason.TRUNCATED
    whole, _ = heard(data)
    audio, found = heard(data[:start] + bytes(small) + data[start + small :])
    assert found.warning is not None and "of silence are in place of lost audio" in found.warning
    assert 0 < found.lost_s < 0.5
    assert audio.shape[1] == pytest.approx(whole.shape[1], abs=100)


@pytest.mark.parametrize("kind", ["alone", "cover"])
def test_a_wrong_time_in_a_wma_file_adds_no_silence_after_its_end(kind: str) -> None:
    plain = _wma(kind)
    data = bytearray(plain)
    # A payload begins with stream and object numbers, offset, and 8 bytes of replicated data: size and time.
    packet = _packets(plain)[-30]
    size = data.index(struct.pack("<BI", 8, _packet_bytes(plain)), packet)
    struct.pack_into("<I", data, size + 5, 60_000)
    audio, _ = heard(bytes(data))
    assert audio.shape[1] == pytest.approx(20 * RATE, abs=0.2 * RATE)


def _packet_bytes(data: bytes) -> int:
    with av.open(io.BytesIO(data)) as container:
        return next(packet.size for packet in container.demux(container.streams.audio[0]))


def test_a_cover_that_is_damaged_costs_no_warning() -> None:
    data = bytearray(_wma("cover"))
    picture = data.index(b"\xff\xd8\xff")
    data[picture + 7000 : picture + 8000] = bytes(1000)
    _, found = heard(bytes(data))
    assert found.warning is None


def test_a_wma_file_from_a_pipe_that_is_cut_has_a_warning() -> None:
    data = _wma("pipe")
    for size in range(len(data) // 2, len(data) // 2 + 3200, 400):
        _, found = heard(data[:size])
        assert found.warning is not None and "the file ends in the middle of a packet" in found.warning


@pytest.mark.parametrize(("cut", "warning"), [(0, False), (100, True)])
def test_a_file_that_begins_in_the_middle_of_a_frame_is_told(cut: int, warning: bool) -> None:
    plain = _long("adts")
    data = plain[_packets(plain)[100] + cut :]
    _, found = heard(data)
    assert (found.warning is not None and "before the first frame are no audio" in found.warning) == warning


@pytest.mark.parametrize("name", ["mp3", "mp3 no Xing", "adts"])
@pytest.mark.parametrize(
    "ahead",
    [bytes(2000), b"ID3\4\0\0\0\0\0\x14" + bytes(20) + bytes(1000), b"ID3\4\0\0\0\0\0\0" * 2],
    ids=["zeros", "zeros after a tag", "tags"],
)
def test_padding_before_the_first_frame_is_no_damage(name: str, ahead: bytes) -> None:
    plain = base(name)
    audio, found = heard(ahead + plain)
    whole, _ = heard(plain)
    assert found.warning is None
    assert audio.shape[1] - whole.shape[1] in range(
        2 * 1152
    )  # FFmpeg takes the encoder delay of a first frame only


def test_a_picture_that_a_wrong_tag_does_not_cover_rejects_no_song() -> None:
    """Old programs wrote the size of an ID3v2 tag with eight bits a byte; players skip the rest of the picture."""
    plain = base("mp3")
    junk = np.random.default_rng(0).bytes(100_000).replace(b"\xff", b"\xfe")
    audio, found = heard(junk + plain)
    whole, _ = heard(plain)
    assert found.warning is not None and "bytes before the first frame are no audio" in found.warning
    assert audio.shape[1] - whole.shape[1] in range(2 * 1152)


def test_a_hole_is_rejected_also_where_no_length_is_stated() -> None:
    flac = bytearray(base("flac"))
    flac[21] &= 0xF0  # the 36 bits of the number of samples: unknown
    flac[22:26] = bytes(4)
    for data in (bytes(flac), base("mp3 no Xing"), base("adts")):
        third = len(data) // 3
        error = rejection(data[:third] + bytes(third) + data[2 * third :])
        assert error.reason is Reason.TRUNCATED
        assert "of 3.0" in error.message


def test_samples_that_differ_from_the_digest_of_a_flac_file_are_told() -> None:
    data = bytearray(base("flac"))
    data[8 + 18] ^= 0xFF  # the first byte of the MD5 digest in STREAMINFO
    audio, found = heard(bytes(data))
    assert audio.shape[1] == 3 * RATE
    assert found.warning == "the samples differ from the MD5 digest in the file"


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_S8"])
def test_the_digest_of_a_whole_flac_file_agrees(subtype: str) -> None:
    _, found = heard(encode_soundfile(excerpt(), RATE, format="FLAC", subtype=subtype))
    assert found.warning is None


# WAV: channels without names, placeholder sizes, valid bits.


@pytest.mark.parametrize(
    ("channels", "at", "sides"),
    [
        (3, 2, (1, 1)),
        (4, 2, (1, 0)),
        (4, 3, (0, 1)),
        (5, 2, (1, 1)),
        (5, 4, (0, 1)),
        (6, 2, (1, 1)),
        (6, 3, (0, 0)),
        (6, 5, (0, 1)),
        (7, 6, (1, 1)),
        (8, 3, (0, 0)),
        (8, 6, (1, 0)),
        (8, 7, (0, 1)),
    ],
)
@pytest.mark.parametrize("extensible", [False, True], ids=["no mask", "mask 0"])
def test_channels_without_names_are_in_microsofts_order(
    channels: int, at: int, sides: tuple[int, int], extensible: bool
) -> None:
    audio = np.zeros((RATE, channels), "<i2")
    audio[:, at] = 8000
    form = struct.pack(
        "<HHIIHH", 0xFFFE if extensible else 1, channels, RATE, 2 * channels * RATE, 2 * channels, 16
    )
    if extensible:
        guid = bytes.fromhex("0100000000001000800000aa00389b71")
        form += struct.pack("<HHI", 22, 16, 0) + guid
    song, found = heard(_riff(form, audio.tobytes()))
    assert [bool(side > 0.01) for side in np.abs(song).mean(axis=1)] == [bool(side) for side in sides]
    if sides == (1, 1):
        np.testing.assert_array_equal(song[0], song[1])
    assert found.warning is not None and f"{channels} channels" in found.warning


def _riff(form: bytes, data: bytes, size: int | None = None) -> bytes:
    stated = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", stated) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


@pytest.mark.parametrize(
    "size", [0, 0x7FFFFFDB, 0x7FFFF000, 0x80000000, 0x80000024, 0xFFFFFFDB, 0xFFFFFF00, 0xFFFFFFFF]
)
def test_a_placeholder_is_no_length(size: int) -> None:
    samples = (excerpt()[:, : 2 * RATE] * 32767).astype("<i2").T.tobytes()
    form = struct.pack("<HHIIHH", 1, 2, RATE, 4 * RATE, 4, 16)
    audio, found = heard(_riff(form, samples, size))
    assert (audio.shape[1], found.warning) == (2 * RATE, None)


def test_a_stated_length_is_still_held_against_a_wav_file() -> None:
    samples = (excerpt()[:, : 2 * RATE] * 32767).astype("<i2").T.tobytes()
    form = struct.pack("<HHIIHH", 1, 2, RATE, 4 * RATE, 4, 16)
    assert rejection(_riff(form, samples, 2 * len(samples))).reason is Reason.TRUNCATED
    audio, found = heard(_riff(form, samples, len(samples) + 4000))
    assert audio.shape[1] == 2 * RATE
    assert found.warning is not None and "the data chunk has 352800 of the 356800 bytes" in found.warning


@pytest.mark.parametrize("valid", [20, 24])
def test_samples_with_fewer_valid_bits_than_their_container_are_read(valid: int) -> None:
    wanted = np.rint(excerpt()[:, :RATE].astype(np.float64) * 2 ** (valid - 1)).astype(np.int64)
    samples = (wanted << (32 - valid)).astype("<i4").T.tobytes()
    form = struct.pack("<HHIIHH", 0xFFFE, 2, RATE, 8 * RATE, 8, 32) + struct.pack("<HHI", 22, valid, 3)
    audio, found = heard(_riff(form + bytes.fromhex("0100000000001000800000aa00389b71"), samples))
    np.testing.assert_array_equal(audio, (wanted / 2 ** (valid - 1)).astype(np.float32))
    assert found.warning is None


def test_a_file_behind_the_file_is_told() -> None:
    _, found = heard(wav(excerpt()) * 2)
    assert found.warning is not None and "another file follows" in found.warning


# Lengths that are stated of something else.


@pytest.mark.parametrize(
    "name", ["webm Opus", "webm Vorbis", "mka AAC", "mka FLAC", "wma 2", "m4a AAC", "ogg Vorbis"]
)
@pytest.mark.parametrize("shape", [with_video, starting_late])
def test_a_longer_video_says_nothing_of_the_audio(name: str, shape) -> None:
    audio, found = heard(shape(name))
    assert audio.shape[1] == pytest.approx(3 * RATE, abs=0.06 * RATE)
    assert found.warning is None


@pytest.mark.parametrize("name", ["webm Opus", "mka FLAC", "wma 2"])
def test_a_cut_video_is_still_truncated(name: str) -> None:
    data = with_video(name)
    assert rejection(data[: len(data) * 2 // 3]).reason is Reason.TRUNCATED


def test_an_empty_mdat_box_does_not_hide_the_index() -> None:
    data = base("m4a AAC")
    index = data.rindex(b"moov") - 4
    # At the end of the audio, so that no offset changes.
    audio, found = heard(data[:index] + b"\0\0\0\x08mdat" + data[index:])
    assert (audio.shape[1], found.warning) == (heard(data)[0].shape[1], None)


@pytest.mark.parametrize("cut", [1, 50, 400])
def test_an_mp4_cut_in_its_index_is_truncated(cut: int) -> None:
    error = rejection(base("m4a AAC")[:-cut])
    assert error.reason is Reason.TRUNCATED
    assert "the moov chunk has" in error.message


@pytest.mark.parametrize("name", ["ogg Vorbis", "ogg Opus", "ogg FLAC"])
def test_an_ogg_file_without_the_flag_of_its_end_is_a_song(name: str) -> None:
    data = bytearray(base(name))
    page = data.rindex(b"OggS")
    data[page + 5] &= ~0x04
    data[page + 22 : page + 26] = bytes(4)
    data[page + 22 : page + 26] = _ogg_crc(bytes(data[page:])).to_bytes(4, "little")
    audio, found = heard(bytes(data))
    assert audio.shape[1] == pytest.approx(3 * RATE, abs=0.1 * RATE)
    assert found.warning == "the end-of-stream flag is missing: the end may be missing"
    assert rejection(bytes(data[:-40])).reason is Reason.TRUNCATED


def _ogg_crc(page: bytes) -> int:
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x104C11DB7) if crc & 0x80000000 else crc << 1
    return crc & 0xFFFFFFFF


@pytest.mark.parametrize("name", ["flac", "wv", "mp3"])
def test_a_file_that_ends_early_after_a_whole_packet_is_a_song_with_a_warning(name: str) -> None:
    data = base(name)
    end = _end_of_a_packet(data, len(data) // 2)
    audio, found = heard(data[:end])
    assert 0.8 * RATE < audio.shape[1] < 2.2 * RATE
    assert found.warning is not None and "the header states" in found.warning
    assert rejection(data[: end - 20]).reason is Reason.TRUNCATED


def _end_of_a_packet(data: bytes, near: int) -> int:
    import av

    with av.open(io.BytesIO(data)) as container:
        ends = [
            packet.pos + packet.size for packet in container.demux(container.streams.audio[0]) if packet.size
        ]
    return max(end for end in ends if end <= near)


def test_a_flac_file_that_was_cut_without_encoding_is_a_song() -> None:
    part = converted(base("flac"), "flac", "-ss 0 -t 1 -c copy -f flac")
    audio, _ = heard(part)
    assert audio.shape[1] == pytest.approx(RATE, abs=4608)


@pytest.mark.parametrize("flags", [0b1110, 0b0000])
def test_an_mp3_whose_xing_header_has_no_number_of_frames_states_no_length(flags: int) -> None:
    data = bytearray(base("mp3"))
    header = max(data.find(b"Xing"), data.find(b"Info"))
    data[header + 7] = flags
    audio, found = heard(bytes(data[: len(data) * 2 // 3]))
    assert audio.shape[1] == pytest.approx(2 * RATE, abs=0.1 * RATE)
    assert found.warning is None or "middle of a packet" in found.warning


def test_tags_between_joined_mp3_files_are_not_damage() -> None:
    tag = b"ID3\3\0\0\0\0\7\x76" + bytes(1014)
    one = base("mp3 no Xing")
    audio, found = heard(tag + tag + one + b"TAG" + bytes(125) + tag + one)
    assert audio.shape[1] == 2 * heard(one)[0].shape[1]
    assert (found.bad_packets, found.warning) == (0, None)


# The stream that is decoded.


def test_the_stream_that_is_marked_as_default_is_decoded() -> None:
    data = _two_streams("-c:a aac -disposition:a:0 comment -disposition:a:1 default")
    audio, found = heard(data)
    assert (pitch(audio), found.audio_stream, found.audio_streams) == (440, 2, 2)


def test_of_several_streams_the_first_that_can_be_decoded_is_decoded() -> None:
    data = _two_streams("-c:a:0 ac3 -c:a:1 aac -disposition:a:0 default -disposition:a:1 0")
    audio, found = heard(data)
    assert (pitch(audio), found.audio_stream, found.audio_streams) == (440, 2, 2)


def _two_streams(options: str) -> bytes:
    sines = [f"sine=frequency={hertz}:duration=2:sample_rate=44100" for hertz in (880, 440)]
    inputs = [part for sine in sines for part in ("-f", "lavfi", "-i", sine)]
    return ffmpeg(*inputs, "-map", "0", "-map", "1", *options.split(), "-f", "matroska", "pipe:1")


def test_a_file_without_a_stream_that_can_be_decoded_is_unsupported() -> None:
    data = ffmpeg("-i", str(source()), "-c:a", "ac3", "-f", "matroska", "pipe:1")
    error = rejection(data)
    assert error.reason is Reason.UNSUPPORTED_FORMAT
    assert "ac3" in error.message


# Reasons that help.


@pytest.mark.parametrize("factor", [1e10, 1e19, 1e30])
def test_samples_that_are_finite_and_no_audio_are_rejected(factor: float) -> None:
    assert rejection(wav(excerpt() * np.float32(factor), "FLOAT")).reason is Reason.TOO_LOUD


def test_integers_in_a_float_file_are_kept() -> None:
    audio, found = heard(wav(excerpt() * np.float32(2**31), "FLOAT"))
    assert float(np.abs(audio).max()) == np.abs(excerpt() * np.float32(2**31)).max()
    assert found.warning is None


def test_a_song_that_is_a_little_too_short_is_told_its_length() -> None:
    error = rejection(wav(excerpt()[:, : RATE // 2 - 1]))
    assert error.message == "the song is 0.499977 s long; the minimum is 0.5 s"


@pytest.mark.parametrize("name", ["m4a AAC", "aiff", "caf"])
def test_eight_channels_decode(name: str) -> None:
    audio, _ = heard(base(name, 8))
    assert audio.shape[1] == pytest.approx(3 * RATE, abs=2048)


def test_surround_in_a_frame_is_not_a_guess() -> None:
    _, found = heard(encode(np.repeat(excerpt()[:1], 6, axis=0), "wav", "pcm_s16le", layout="5.1"))
    assert found.warning is None


@pytest.mark.parametrize("name", ["vorbis", "opus"])
def test_a_tag_in_front_of_ogg_hides_no_cut(name: str) -> None:
    """Pages are checked after it as without it."""
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 0, 20]) + bytes(20)
    whole = encoded(name)
    with_tag, without = (
        np.concatenate(list(decode(io.BytesIO(each), LIMITS)), axis=1) for each in (tag + whole, whole)
    )
    assert np.array_equal(with_tag, without)
    with pytest.raises(SongRejected) as caught:
        list(decode(io.BytesIO(tag + whole[: len(whole) // 2]), LIMITS))
    assert caught.value.reason is Reason.TRUNCATED


def test_a_process_that_decoded_an_odd_layout_ends_as_usual(tmp_path: Path) -> None:
    """PyAV frees such a layout twice, unless it is never freed."""
    file = tmp_path / "song.aiff"
    file.write_bytes(base("aiff", 8))
    program = (
        "import sys\n"
        "from bandscope_dagster.audio.decode import decode\nfrom bandscope_dagster.audio.limits import Limits\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    print(sum(block.shape[1] for block in decode(file, Limits(max_bytes=10**9))))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True)
    assert ended.returncode == 0 and int(ended.stdout) > 2 * RATE, ended.stderr


def test_audio_behind_a_data_size_that_is_too_small_is_a_warning() -> None:
    data = bytearray(wav(excerpt()))
    place = data.index(b"data") + 4
    struct.pack_into("<I", data, place, 200_000)
    struct.pack_into("<I", data, 4, 200_000 + place)
    _, found = heard(bytes(data))
    assert found.warning is not None and "bytes after the audio belong to no chunk" in found.warning
