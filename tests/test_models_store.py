"""models/store: no byte of a model file is given out before its digest is known to be right."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import CONTENTS, hub_model

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import find_model, load_inventory
from bandscope_dagster.models.store import (
    EMBEDDED,
    MEND_EMBEDDED,
    inspect,
    model_folder,
    read_verified,
    require,
)

MUSICNN = find_model("musicnn")
(FILE,) = MUSICNN.files


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of musicnn's file, to be spoilt."""
    shutil.copy(EMBEDDED / FILE.name, tmp_path)
    return tmp_path / FILE.name


def test_the_shipped_files_are_the_ones_in_the_inventory(tmp_path: Path):
    shipped = [model for model in load_inventory().values() if model.embedded]
    assert [model.name for model in shipped] == ["spleeter-2stems", "musicnn"]
    require(shipped, tmp_path)


def test_the_other_models_are_looked_for_in_a_folder_each(tmp_path: Path):
    model = find_model("htdemucs")
    assert model_folder(model, tmp_path) == tmp_path / "htdemucs"
    assert inspect(model, model.files[0], tmp_path / "htdemucs").state == "missing"
    (tmp_path / "htdemucs").mkdir()
    (tmp_path / "htdemucs" / "955717e8.safetensors").write_bytes(b"no weights")
    assert inspect(model, model.files[0], tmp_path / "htdemucs").state == "wrong"


def test_what_is_required_and_not_there_is_named_file_by_file(tmp_path: Path):
    with pytest.raises(ModelFileError) as error:
        require([find_model("htdemucs"), find_model("musicnn"), find_model("htdemucs_ft")], tmp_path)
    lines = str(error.value).splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        f"{signature}.safetensors"
        for signature in ("955717e8", "f7e0c4bc", "d12395a8", "92cfc3b6", "04573f0d")
    ]


def test_verified_bytes_are_the_bytes_of_the_file_and_the_digest_is_theirs():
    verified = read_verified(MUSICNN, model_folder(MUSICNN, Path("unused")))
    assert verified.files == {FILE.name: (EMBEDDED / FILE.name).read_bytes()}
    assert verified.sha256 == MUSICNN.sha256 == hashlib.sha256(verified.files[FILE.name]).hexdigest()


def test_of_several_files_the_digest_is_that_of_the_inventory(tmp_path: Path):
    model = hub_model()
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    assert read_verified(model, tmp_path).sha256 == model.sha256


def test_one_flipped_bit_in_a_file_that_would_still_parse_is_refused(copy: Path):
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ModelFileError) as error:
        read_verified(MUSICNN, copy.parent)
    message = str(error.value)
    assert FILE.name in message
    assert f"{FILE.bytes} bytes with SHA-256 {FILE.sha256}, found {FILE.bytes} bytes" in message
    assert message.count("SHA-256") == 2
    assert MEND_EMBEDDED in message


def test_a_truncated_file_is_refused_with_both_sizes(copy: Path):
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match=rf"expected {FILE.bytes} bytes.*found 1000 bytes"):
        read_verified(MUSICNN, copy.parent)


def test_a_missing_file_is_refused_with_what_was_expected_and_the_mend(tmp_path: Path):
    with pytest.raises(ModelFileError, match="is missing") as error:
        read_verified(MUSICNN, tmp_path)
    assert FILE.name in str(error.value)
    assert FILE.sha256 in str(error.value)
    assert MEND_EMBEDDED in str(error.value)


def test_what_is_not_part_of_the_package_is_mended_by_pull_or_add(tmp_path: Path):
    model = hub_model()
    (tmp_path / model.files[0].name).write_bytes(b"these are not the weights, and not safetensors either")
    with pytest.raises(ModelFileError, match=r"found 53 bytes with SHA-256 \w{64}") as wrong:
        read_verified(model, tmp_path)
    with pytest.raises(ModelFileError, match="is missing") as missing:
        read_verified(model, tmp_path / "empty")
    for error in wrong, missing:
        assert "`bandscope models pull tiny`" in str(error.value)
        assert "`bandscope models add tiny --from FILE`" in str(error.value)
        assert "pip" not in str(error.value)


def test_one_wrong_file_of_several_is_the_one_that_is_named(tmp_path: Path):
    model = hub_model()
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "two.safetensors").write_bytes(CONTENTS["one.safetensors"])
    with pytest.raises(ModelFileError, match=r"^two\.safetensors of model tiny is not the file"):
        read_verified(model, tmp_path)


def test_a_file_that_changes_after_it_was_read_once_is_refused_the_next_time(copy: Path):
    before = copy.stat()
    read_verified(MUSICNN, copy.parent)
    copy.write_bytes(bytes(before.st_size))
    with pytest.raises(ModelFileError):
        read_verified(MUSICNN, copy.parent)


def test_a_file_of_the_right_digest_and_another_size_than_listed_is_refused(copy: Path):
    lied = replace(MUSICNN, files=(replace(FILE, bytes=FILE.bytes + 1),))
    with pytest.raises(ModelFileError, match=f"expected {FILE.bytes + 1} bytes"):
        read_verified(lied, copy.parent)
