"""Bytes of a model file are returned only after their digest is verified."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import CONTENTS, REVISION, hub_model
from safetensors.numpy import load_file
from sharded_model import SHARDS, UNWANTED, WANTED, sharded_model, write_files

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model, find_model, load_inventory
from bandscope_dagster.models.pins import PINS, Pin, find_pins, record_pins
from bandscope_dagster.models.store import (
    EMBEDDED,
    REINSTALL,
    inspect,
    inspect_model,
    model_folder,
    read_verified,
    require,
    verified_folder,
)

MUSICNN = find_model("musicnn")
(FILE,) = MUSICNN.files


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of musicnn's file that the test may damage."""
    shutil.copy(EMBEDDED / FILE.name, tmp_path)
    return tmp_path / FILE.name


def test_the_shipped_files_are_the_ones_in_the_inventory(tmp_path: Path):
    shipped = [model for model in load_inventory().values() if model.embedded]
    assert [model.name for model in shipped] == ["spleeter-2stems", "bandscope-instruments", "musicnn"]
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
    assert REINSTALL in message


def test_a_truncated_file_is_refused_with_both_sizes(copy: Path):
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(ModelFileError, match=rf"expected {FILE.bytes} bytes.*found 1000 bytes"):
        read_verified(MUSICNN, copy.parent)


def test_a_missing_file_is_refused_with_what_was_expected_and_the_command_to_run(tmp_path: Path):
    with pytest.raises(ModelFileError, match="is missing") as error:
        read_verified(MUSICNN, tmp_path)
    assert FILE.name in str(error.value)
    assert FILE.sha256 in str(error.value)
    assert REINSTALL in str(error.value)


def test_what_is_not_part_of_the_package_is_got_by_pull_or_add(tmp_path: Path):
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


SHARDED = sharded_model()


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The folder of a sharded model without listed files, with other files beside the shards."""
    folder = write_files(WANTED | UNWANTED, tmp_path / "sharded")
    pins = {
        name: Pin(len(content), hashlib.sha256(content).hexdigest(), REVISION)
        for name, content in WANTED.items()
    }
    record_pins(pins, folder, folder / ".pending")
    return folder


def test_a_verified_folder_holds_the_files_of_the_model_and_nothing_else(sharded: Path) -> None:
    with verified_folder(SHARDED, sharded) as verified:
        assert {path.name: path.read_bytes() for path in verified.path.iterdir()} == WANTED
        weights = load_file(verified.path / SHARDS[0])
    assert not verified.path.exists() and (sharded / SHARDS[0]).exists()
    assert weights["layer0.weight"].shape == (100, 60)


def test_its_digest_is_that_of_every_file_with_its_name(sharded: Path, tmp_path: Path) -> None:
    def digest(model: Model, folder: Path) -> str:
        with verified_folder(model, folder) as verified:
            return verified.sha256

    lines = "".join(f"{name} {hashlib.sha256(WANTED[name]).hexdigest()}\n" for name in sorted(WANTED))
    assert digest(SHARDED, sharded) == hashlib.sha256(lines.encode()).hexdigest()

    pins = find_pins(SHARDED, sharded)
    record_pins(pins | {"vocab.json": pins["config.json"]}, sharded, sharded / ".pending")
    shutil.copy(sharded / "config.json", sharded / "vocab.json")
    assert digest(SHARDED, sharded) != hashlib.sha256(lines.encode()).hexdigest()


def test_where_every_digest_is_listed_a_folder_and_the_bytes_have_one_identity(tmp_path: Path) -> None:
    folder = write_files(CONTENTS, tmp_path / "tiny")
    for model, place in ((hub_model(), folder), (MUSICNN, EMBEDDED)):
        with verified_folder(model, place) as verified:
            assert verified.sha256 == read_verified(model, place).sha256 == model.sha256


def spoil(folder: Path, damage: str) -> None:
    shard = folder / SHARDS[1]
    match damage:
        case "changed":
            content = bytearray(shard.read_bytes())
            content[-1] ^= 1
            shard.write_bytes(content)
        case "missing":
            shard.unlink()
        case "additional":
            shutil.copy(shard, folder / "model-00004-of-00004.safetensors")
        case "never pinned":
            (folder / PINS).unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            "changed",
            rf"{SHARDS[1]} of model sharded is not the file that the hub's metadata states at revision",
        ),
        ("missing", rf"{SHARDS[1]} of model sharded is missing: expected \d+ bytes with SHA-256 \w{{64}}"),
        (
            "additional",
            r"model-00004-of-00004\.safetensors is not a file of model sharded: delete or move it",
        ),
        ("never pinned", r"Model sharded is missing: .* no valid record of a pull or an add"),
    ],
)
def test_what_is_wrong_with_one_shard_is_found_before_anything_is_loaded(
    damage: str, says: str, sharded: Path
) -> None:
    require([SHARDED], sharded.parent)
    spoil(sharded, damage)
    with pytest.raises(ModelFileError, match=says) as unverified, verified_folder(SHARDED, sharded):
        pytest.fail("it was opened")
    with pytest.raises(ModelFileError) as required:
        require([SHARDED], sharded.parent)
    assert str(required.value) == str(unverified.value) and len(str(required.value).splitlines()) == 1
    if damage != "additional":
        assert "`bandscope models pull sharded`" in str(required.value)
        assert "`bandscope models add sharded --from FOLDER`" in str(required.value)


def test_a_model_that_was_never_pulled_is_one_status(tmp_path: Path) -> None:
    (status,) = inspect_model(SHARDED, tmp_path / "sharded")
    assert status.state == "missing" and status.subject == "Model sharded"


def test_a_changed_file_that_was_added_says_that_no_published_digest_confirms_it(sharded: Path) -> None:
    pins = {name: replace(pin, revision=None) for name, pin in find_pins(SHARDED, sharded).items()}
    record_pins(pins, sharded, sharded / ".pending")
    spoil(sharded, "changed")
    with pytest.raises(
        ModelFileError, match="is not the file as it was added, which no published digest confirms"
    ):
        require([SHARDED], sharded.parent)


def test_files_are_hashed_several_at_once_and_reported_in_their_order(sharded: Path) -> None:
    assert [status.name for status in inspect_model(SHARDED, sharded)] == sorted(WANTED)
