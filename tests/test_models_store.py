"""models/store: no byte of a model file is given out before its digest is known to be right."""

import shutil
from pathlib import Path

import pytest

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.store import EMBEDDED, MEND_EMBEDDED, read_verified, verify

MUSICNN = find_model("musicnn").files[0]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of musicnn's file, to be spoilt."""
    shutil.copy(EMBEDDED / MUSICNN.name, tmp_path)
    return tmp_path / MUSICNN.name


def test_the_shipped_files_are_the_ones_in_the_inventory():
    assert [(status.file.name, status.state) for status in verify()] == [
        ("spleeter-2stems.safetensors", "present"),
        ("musicnn-mtt.safetensors", "present"),
    ]


def test_verified_bytes_are_the_bytes_of_the_file():
    assert read_verified("musicnn") == {MUSICNN.name: (EMBEDDED / MUSICNN.name).read_bytes()}


def test_one_flipped_bit_in_a_file_that_would_still_parse_is_refused(copy: Path):
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ModelFileError) as error:
        read_verified("musicnn", copy.parent)
    message = str(error.value)
    assert MUSICNN.name in message
    assert f"{MUSICNN.bytes} bytes with SHA-256 {MUSICNN.sha256}, found {MUSICNN.bytes} bytes" in message
    assert message.count("SHA-256") == 2
    assert MEND_EMBEDDED in message


def test_a_truncated_file_is_refused_with_both_sizes(copy: Path):
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match=rf"expected {MUSICNN.bytes} bytes.*found 1000 bytes"):
        read_verified("musicnn", copy.parent)


def test_a_missing_file_is_refused_with_what_was_expected_and_the_mend(tmp_path: Path):
    with pytest.raises(ModelFileError, match="is missing") as error:
        read_verified("musicnn", tmp_path)
    assert MUSICNN.name in str(error.value)
    assert MUSICNN.sha256 in str(error.value)
    assert MEND_EMBEDDED in str(error.value)


def test_a_file_that_changes_after_it_was_read_once_is_refused_the_next_time(copy: Path):
    before = copy.stat()
    read_verified("musicnn", copy.parent)
    copy.write_bytes(bytes(before.st_size))
    with pytest.raises(ModelFileError):
        read_verified("musicnn", copy.parent)


def test_verify_tells_wrong_from_missing(copy: Path):
    copy.write_bytes(b"not a model")
    states = {status.file.name: status.state for status in verify(copy.parent)}
    assert states == {"spleeter-2stems.safetensors": "missing", "musicnn-mtt.safetensors": "wrong"}
