"""Headers of frames, pages and tags: the parts of files that are read without FFmpeg."""

import io

import av
import pytest
from audio_files import encode, encoded, excerpt

from bandscope_dagster.audio.asf import read_asf
from bandscope_dagster.audio.file_view import FileView
from bandscope_dagster.audio.flac_headers import first_sample, split_frames
from bandscope_dagster.audio.foreign_tags import after_tags, audio_end, audio_start
from bandscope_dagster.audio.mpeg import adts_frame_bytes, mpeg_frame_bytes
from bandscope_dagster.audio.ogg import read_links

ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\3\0\0\0\0\1\0" + bytes(128)
APE = b"APETAGEX" + bytes((0xD0, 7, 0, 0)) + bytes((43, 0, 0, 0)) + bytes(16)


def packets(data: bytes) -> list[bytes]:
    with av.open(io.BytesIO(data)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


@pytest.mark.parametrize("rate", [44_100, 37_800, 8_000])
def test_the_place_of_a_flac_frame_is_in_its_header(rate: int) -> None:
    frames = packets(encode(excerpt(), "flac", "flac", rate=rate))
    places = [first_sample(frame[:32], 0) for frame in frames[:-1]]
    assert places[0] == 0 and places[1]
    assert places == [number * places[1] for number in range(len(places))]
    assert list(split_frames(b"".join(frames[:3]))) == frames[:3]
    damaged = bytes([*frames[1][:3], frames[1][3] ^ 1, *frames[1][4:32]])
    assert first_sample(damaged, 0) is None


@pytest.mark.parametrize(
    ("kind", "size_of"),
    [("mp3", mpeg_frame_bytes), ("mp3_without_xing", mpeg_frame_bytes), ("adts", adts_frame_bytes)],
)
def test_the_size_of_a_frame_is_in_its_header(kind: str, size_of) -> None:
    for packet in packets(encoded(kind)):
        assert size_of(packet[:32]) == len(packet)
    assert size_of(bytes(32)) is None


def test_tags_around_the_audio_are_found() -> None:
    audio = encoded("adts")
    ape = b"\5\0\0\0\0\0\0\0A\0two"[:11] + APE
    file = io.BytesIO(ID3V2 + ID3V2 + audio + ape + ID3V1)
    assert audio_start(file) == 2 * len(ID3V2)
    assert audio_end(file) == 2 * len(ID3V2) + len(audio)
    assert after_tags(ID3V1 + ID3V2 + b"audio") == b"audio"
    assert (audio_start(io.BytesIO(audio)), audio_end(io.BytesIO(audio))) == (0, len(audio))


def test_the_links_of_an_ogg_file_are_found_by_their_first_pages() -> None:
    one, other = encoded("vorbis"), encoded("opus")
    found = read_links(io.BytesIO(one + other + ID3V1))
    assert [(link.start, link.end) for link in found.links] == [(0, len(one)), (len(one), len(one + other))]
    assert all(link.ended and not link.lost_pages for link in found.links) and not found.ends_inside
    assert found.links[0].last_position == excerpt().shape[1]


def test_a_missing_page_and_a_cut_page_of_an_ogg_file_are_found() -> None:
    data = encoded("vorbis")
    pages = [at for at in range(len(data)) if data[at : at + 5] == b"OggS\0"]
    without = data[: pages[4]] + data[pages[5] :]
    assert [link.lost_pages for link in read_links(io.BytesIO(without)).links] == [True]
    for bytes_of_page in (1, 4, 5, 26, 100):
        assert read_links(io.BytesIO(data[: pages[5] + bytes_of_page])).ends_inside, bytes_of_page
    whole = read_links(io.BytesIO(data[: pages[5]]))
    assert not whole.ends_inside and not whole.links[0].ended


def test_a_view_is_a_part_of_a_file_with_some_bytes_replaced() -> None:
    view = FileView(io.BytesIO(b"0123456789"), 2, 8, {1: b"ab", 6: b"xyz"})
    assert view.read() == b"b345xy" and view.read() == b""
    assert (view.seek(-2, 2), view.read(1), view.tell()) == (4, b"x", 5)
    with pytest.raises(ValueError, match="negative"):
        view.seek(-1)


def test_the_packets_of_an_asf_file_begin_alike() -> None:
    data = bytearray(encoded("wma"))
    found = read_asf(io.BytesIO(data))
    assert found is not None and found.length_s is not None and not found.cut
    with av.open(io.BytesIO(data)) as container:
        assert found.length_s == pytest.approx(container.duration / 1e6, abs=0.001)
    size = found.packet_bytes
    assert (len(found.whole), found.lost_bytes()) == ((len(data) - found.first) // size, 0)
    for number in (0, 2):
        data[found.first + number * size] = 0
    damaged = read_asf(io.BytesIO(data))
    assert damaged is not None
    positions = (0, found.first, found.first + 1, found.first + 2 * size, found.first + 2 * size + 1)
    assert [damaged.lost_bytes(position) // size for position in positions] == [2, 2, 1, 1, 0]


@pytest.mark.parametrize(
    ("place", "field"),
    [(64, bytes(8)), (80, b"\xff" * 8), (88, b"\1\0\0\0")],
    ids=["no duration", "a preroll that is longer", "a broadcast"],
)
def test_an_asf_file_may_state_no_length(place: int, field: bytes) -> None:
    data = bytearray(encoded("wma"))
    properties = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    data[properties + place : properties + place + len(field)] = field
    found = read_asf(io.BytesIO(data))
    assert found is not None and found.length_s is None


@pytest.mark.parametrize("size", [0, 1, 63, 1 << 20, 2**32 - 1])
def test_an_odd_size_of_packets_is_not_believed(size: int) -> None:
    data = bytearray(encoded("wma"))
    properties = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    data[properties + 92 : properties + 100] = 2 * size.to_bytes(4, "little")
    found = read_asf(io.BytesIO(data))
    assert found is not None and (found.packet_bytes, found.lost_bytes()) == (0, 0)


def test_the_header_of_an_asf_file_may_be_damaged() -> None:
    data = encoded("wma")
    assert read_asf(io.BytesIO(encoded("vorbis"))) is None
    for size in range(0, 700, 7):
        read_asf(io.BytesIO(data[:size]))
