"""scripts/convert_models.py and its reader of TensorFlow checkpoints."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("tensorflow_checkpoint")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("convert_models")


def test_crc32c_gives_the_check_values_of_rfc_3720(reader: ModuleType):
    assert reader.crc32c(bytes(32)) == 0x8A9136AA
    assert reader.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert reader.crc32c(b"123456789") == 0xE3069283


def test_snappy_reads_literals_and_copies_that_overlap_what_they_write(reader: ModuleType):
    literal, copy = bytes([(3 - 1) << 2]) + b"abc", bytes([(7 - 4) << 2 | 1, 3])
    assert reader.snappy_decompress(bytes([10]) + literal + copy) == b"abcabcabca"


def test_snappy_that_reaches_before_its_start_is_refused(reader: ModuleType):
    with pytest.raises(reader.CheckpointError, match="reaches 3 bytes back"):
        reader.snappy_decompress(bytes([4, (7 - 4) << 2 | 1, 3]))


def write_index(reader: ModuleType, name: bytes, entry: bytes) -> bytes:
    """A LevelDB table with one uncompressed block that holds one key."""

    def block(key: bytes, value: bytes) -> bytes:
        body = (
            bytes([0, len(key), len(value)])
            + key
            + value
            + (0).to_bytes(4, "little")
            + (1).to_bytes(4, "little")
        )
        return body + b"\0" + reader.masked_crc32c(body + b"\0").to_bytes(4, "little")

    data = block(name, entry)
    index = block(name, bytes([0, len(data) - 5]))
    handles = bytes([0, 0, len(data), len(index) - 5])
    return data + index + handles.ljust(40, b"\0") + reader.TABLE_MAGIC.to_bytes(8, "little")


@pytest.fixture
def index(reader: ModuleType) -> bytes:
    """The index of a checkpoint that holds "kernel": float32, (2, 3), the numbers 0 to 5."""
    shape = bytes([0x12, 2, 0x08, 2, 0x12, 2, 0x08, 3])
    crc = reader.masked_crc32c(np.arange(6, dtype="<f4").tobytes()).to_bytes(4, "little")
    return write_index(reader, b"kernel", bytes([0x08, 1, 0x12, len(shape), *shape, 0x28, 24, 0x35]) + crc)


def test_a_variable_is_read_with_its_shape(reader: ModuleType, index: bytes):
    kernel = reader.Checkpoint(index, np.arange(6, dtype="<f4").tobytes())["kernel"]
    np.testing.assert_array_equal(kernel, np.arange(6, dtype=np.float32).reshape(2, 3))


def test_a_variable_whose_bytes_changed_is_refused(reader: ModuleType, index: bytes):
    with pytest.raises(reader.CheckpointError, match="kernel: does not match its checksum"):
        reader.Checkpoint(index, np.ones(6, dtype="<f4").tobytes())["kernel"]


def test_an_index_whose_bytes_changed_is_refused(reader: ModuleType, index: bytes):
    with pytest.raises(reader.CheckpointError, match="checksum"):
        reader.Checkpoint(b"\1" + index[1:], b"")


def test_a_wheel_that_is_not_the_published_one_is_refused(script: ModuleType, tmp_path: Path):
    wheel = tmp_path / "musicnn-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"musicnn-0\.1\.0-py3-none-any\.whl: expected SHA-256 f38a4890"):
        script.read_source("musicnn", wheel)
