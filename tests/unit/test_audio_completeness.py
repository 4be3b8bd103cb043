import io
import struct

import pytest
from audio_files import ENCODERS, encoded

from bandscope_dagster.audio.completeness import missing_part
from bandscope_dagster.audio.mpeg import states_frame_count


@pytest.mark.parametrize("name", ENCODERS)
def test_a_complete_file_has_no_missing_part(name):
    assert missing_part(io.BytesIO(encoded(name))) is None


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("wav16", "data"),
        ("aiff", "SSND"),
        ("caf", "data"),
        ("w64", "data"),
        ("m4a_aac", "mdat"),
        ("wma", "data"),
        ("matroska", "segment"),
    ],
)
def test_a_cut_file_names_what_is_missing(name, named):
    data = encoded(name)
    missing = missing_part(io.BytesIO(data[: len(data) * 9 // 10]))
    assert named in missing.message
    assert missing.share == pytest.approx(0.1, abs=0.02)


def test_the_last_byte_of_the_audio_is_missed():
    data = encoded("wav16")
    end = data.index(b"data") + 8 + struct.unpack_from("<I", data, data.index(b"data") + 4)[0]
    assert missing_part(io.BytesIO(data[:end])) is None
    assert "data" in missing_part(io.BytesIO(data[: end - 1])).message


def test_an_mp4_without_its_index_is_found():
    data = encoded("m4a_aac")
    assert "moov" in missing_part(io.BytesIO(data[: data.rindex(b"moov") - 4])).message


def test_an_rf64_file_states_its_size_in_ds64():
    plain = encoded("wav16")
    start = plain.index(b"data") + 8
    samples = plain[start:]

    def rf64(data_size):
        ds64 = b"ds64" + struct.pack("<IQQQI", 28, 2**33, data_size, 0, 0)
        form = plain[12 : plain.index(b"data")]
        return b"RF64\xff\xff\xff\xffWAVE" + ds64 + form + b"data\xff\xff\xff\xff" + samples

    assert missing_part(io.BytesIO(rf64(len(samples)))) is None
    assert str(2 * len(samples)) in missing_part(io.BytesIO(rf64(2 * len(samples)))).message


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_a_matroska_file_that_ends_in_its_first_size_states_none(cut):
    data = encoded("matroska")
    assert missing_part(io.BytesIO(data[: 4 + cut])) is None


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_sizes_that_mean_unknown_miss_nothing(size):
    data = bytearray(encoded("wav16"))
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    assert missing_part(io.BytesIO(data)) is None


@pytest.mark.parametrize("chunk", [struct.pack("<4sI", b"JUNK", 0), struct.pack("<4sI", b"LIST", 2)])
def test_a_file_of_endless_chunks_is_not_read_to_its_end(chunk):
    reads = []

    class Counted(io.BytesIO):
        def read(self, size=-1):
            reads.append(size)
            return super().read(size)

    missing_part(Counted(b"RIFF\0\0\0\0WAVE" + chunk.ljust(8 + 8, b"\0") * 50_000))
    assert len(reads) < 20_000


def test_an_mp3_states_its_length_only_with_a_number_of_frames():
    data = encoded("mp3")
    assert states_frame_count(io.BytesIO(data))
    assert states_frame_count(io.BytesIO(b"ID3\3\0\0\0\0\0\x0a" + bytes(10) + data))
    assert not states_frame_count(io.BytesIO(encoded("mp3_without_xing")))
    flags = max(data.find(b"Xing"), data.find(b"Info")) + 7
    assert not states_frame_count(io.BytesIO(data[:flags] + b"\x0e" + data[flags + 1 :]))
