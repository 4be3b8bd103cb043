"""A model from a folder is added as a whole, with the digests of its files pinned as found, or not at all."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import REVISION
from sharded_model import INDEX, SHARDS, UNWANTED, WANTED, sharded_model, write_files

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import ModelFile
from bandscope_dagster.models.pins import Pin, find_pins, record_pins
from bandscope_dagster.models.provision import add
from bandscope_dagster.models.store import inspect_model, require

SHARDED = sharded_model()


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A clone of the hub's repository."""
    return write_files(WANTED | UNWANTED, tmp_path / "given")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def how(placements: Iterator[object]) -> list[str]:
    return [f"{placed.file.name} {placed.how}" for placed in placements]


def content_of(models: Path) -> dict[str, bytes]:
    """The files in the model's folder, without hidden ones and the record of pins."""
    folder = models / "sharded"
    names = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.exists() else []
    return {path.name: path.read_bytes() for path in names if path.name != "pins.json"}


def test_what_the_patterns_want_is_taken_and_nothing_else(given: Path, models: Path) -> None:
    write_files({"model.safetensors": b"not looked at"}, given / "within")
    assert how(add(SHARDED, [given], models)) == [f"{name} copied" for name in sorted(WANTED)]
    assert content_of(models) == WANTED
    require([SHARDED], models)


def test_digests_are_pinned_as_they_are_found_and_verify_says_who_vouches(given: Path, models: Path) -> None:
    list(add(SHARDED, [given], models))
    folder = models / "sharded"
    assert find_pins(SHARDED, folder) == {
        name: Pin(len(content), hashlib.sha256(content).hexdigest(), None) for name, content in WANTED.items()
    }
    for status in inspect_model(SHARDED, folder):
        assert "present, the file as it was added, which no published digest confirms" in str(status)


def test_what_the_hub_vouched_for_remains_vouched_for(given: Path, models: Path) -> None:
    list(add(SHARDED, [given], models))
    folder = models / "sharded"
    pins = find_pins(SHARDED, folder)
    stated = {name: replace(pin, revision=REVISION) for name, pin in pins.items()}
    record_pins(stated, folder, folder / ".pending")
    (given / "config.json").write_bytes(b"{}")
    list(add(SHARDED, [given], models))
    assert {name for name, pin in find_pins(SHARDED, folder).items() if not pin.revision} == {"config.json"}


def test_shards_may_come_from_several_folders(models: Path, tmp_path: Path) -> None:
    rest = {name: content for name, content in WANTED.items() if name != SHARDS[1]}
    folders = [write_files({SHARDS[1]: WANTED[SHARDS[1]]}, tmp_path / "a"), write_files(rest, tmp_path / "b")]
    list(add(SHARDED, folders, models))
    assert content_of(models) == WANTED


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (SHARDS[1], f"it has no {SHARDS[1]}, which {INDEX} names"),
        (INDEX, rf"it has no model\.safetensors, and no {INDEX}"),
        ("config.json", r"Model sharded is incomplete, without config\.json\. Add all"),
    ],
)
def test_a_model_that_is_not_whole_is_not_taken(name: str, says: str, given: Path, models: Path) -> None:
    (given / name).unlink()
    with pytest.raises(ModelFileError, match=says):
        list(add(SHARDED, [given], models))
    assert content_of(models) == {} and find_pins(SHARDED, models / "sharded") == {}


def test_weights_that_are_no_safetensors_are_refused_and_what_was_there_stays(
    given: Path, models: Path
) -> None:
    list(add(SHARDED, [given], models))
    for content in (WANTED[SHARDS[2]][:-1], b"\x80\x04a pickle of another name"):
        (given / SHARDS[2]).write_bytes(content)
        with pytest.raises(ModelFileError, match=f"{SHARDS[2]} is not a complete safetensors file"):
            list(add(SHARDED, [given], models))
    assert content_of(models) == WANTED and not (models / "sharded" / ".incoming").exists()
    require([SHARDED], models)


def test_a_file_that_the_inventory_lists_must_be_that_one(given: Path, models: Path) -> None:
    content = WANTED[SHARDS[0]]
    file = ModelFile(SHARDS[0], len(content), hashlib.sha256(content).hexdigest())
    listed = replace(SHARDED, files=(file,))
    list(add(listed, [given], models))
    assert find_pins(listed, models / "sharded").keys() == WANTED.keys() - {SHARDS[0]}
    (given / SHARDS[0]).write_bytes(WANTED[SHARDS[1]])
    with pytest.raises(ModelFileError, match=f"is not the {SHARDS[0]} of model sharded: expected") as refused:
        list(add(listed, [given], models))
    assert file.sha256 in str(refused.value) and str(refused.value).count("SHA-256") == 2
    assert content_of(models) == WANTED


def test_a_file_that_is_named_must_be_the_models(given: Path, models: Path) -> None:
    with pytest.raises(
        ModelFileError,
        match=r"pytorch_model\.bin: model sharded has no file of this name; its files are \*\.safetensors",
    ):
        list(add(SHARDED, [given, given / "pytorch_model.bin"], models))
    assert not models.exists()


def test_two_files_of_one_name_are_refused(given: Path, models: Path, tmp_path: Path) -> None:
    other = write_files({"config.json": b"{}"}, tmp_path / "other")
    with pytest.raises(ModelFileError, match=r"config\.json was given twice"):
        list(add(SHARDED, [given, other], models))


def test_a_pipe_with_the_name_of_a_shard_is_refused_and_not_waited_for(given: Path, models: Path) -> None:
    (given / SHARDS[0]).unlink()
    os.mkfifo(given / SHARDS[0])
    with pytest.raises(ModelFileError, match="not a regular file"):
        list(add(SHARDED, [given], models))


def test_a_shard_of_the_model_before_that_is_left_over_is_named(given: Path, models: Path) -> None:
    write_files({"model-00004-of-00004.safetensors": b"old"}, models / "sharded")
    with pytest.raises(
        ModelFileError, match=r"model-00004-of-00004\.safetensors is not a file of model sharded"
    ):
        list(add(SHARDED, [given], models))
    (models / "sharded" / "model-00004-of-00004.safetensors").unlink()
    require([SHARDED], models)


def test_a_disk_that_is_too_small_is_found_before_anything_is_copied(given: Path, models: Path) -> None:
    os.truncate(given / SHARDS[0], 2**43)  # a sparse file of 8 TiB
    with pytest.raises(ModelFileError, match=r"too full for model sharded: 87960\d+ bytes are needed"):
        list(add(SHARDED, [given], models))
    assert content_of(models) == {}
