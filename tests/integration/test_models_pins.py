"""The record of a model's pinned digests, which its files are verified with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import REVISION, hub_model
from sharded_model import sharded_model

from bandscope_dagster.models.inventory import ModelFile
from bandscope_dagster.models.pins import PINS, Pin, are_of_the_hub, find_pins, known_files, record_pins

SHARDED = sharded_model()
STATED, ADDED = Pin(3, "a" * 64, REVISION), Pin(5, "b" * 64, None)
BOTH = {"config.json": STATED, "model.safetensors": ADDED}


def test_what_was_recorded_is_found(tmp_path: Path) -> None:
    assert find_pins(SHARDED, tmp_path) == {}
    record_pins(BOTH, tmp_path, tmp_path / "pending")
    assert find_pins(SHARDED, tmp_path) == BOTH
    assert [path.name for path in tmp_path.iterdir()] == [PINS]


def test_a_new_record_replaces_the_old_one(tmp_path: Path) -> None:
    record_pins(BOTH | {"vocab.json": STATED}, tmp_path, tmp_path / "pending")
    record_pins(BOTH, tmp_path, tmp_path / "pending")
    assert find_pins(SHARDED, tmp_path) == BOTH


def test_a_record_of_another_revision_counts_as_none(tmp_path: Path) -> None:
    record_pins(BOTH, tmp_path, tmp_path / "pending")
    source = replace(SHARDED.source, revision="f" * 40)
    assert find_pins(replace(SHARDED, source=source), tmp_path) == {}


def test_a_record_in_which_a_file_is_missing_that_the_model_must_have_counts_as_none(tmp_path: Path) -> None:
    record_pins({"config.json": STATED}, tmp_path, tmp_path / "pending")
    assert find_pins(SHARDED, tmp_path) == {}


@pytest.mark.parametrize("entry", [None, [], {}, {"bytes": "many", "sha256": "", "revision": None}])
def test_a_record_of_another_shape_counts_as_none(entry: Any, tmp_path: Path) -> None:
    record_pins(BOTH, tmp_path, tmp_path / "pending")
    record = json.loads((tmp_path / PINS).read_text())
    for text in ("", "{", "[1]", "null", json.dumps(record | {"vocab.json": entry})):
        (tmp_path / PINS).write_text(text)
        assert find_pins(SHARDED, tmp_path) == {}


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "modeling.py", "pytorch_model.bin", "a/b.safetensors"]
)
def test_a_file_that_is_not_the_models_cannot_be_pinned(name: str, tmp_path: Path) -> None:
    record_pins(BOTH | {name: STATED}, tmp_path, tmp_path / "pending")
    assert find_pins(SHARDED, tmp_path) == BOTH


def test_the_inventory_has_the_last_word_on_the_files_that_it_lists(tmp_path: Path) -> None:
    listed = replace(SHARDED, files=(ModelFile("model-2.safetensors", 7, "c" * 64),))
    record_pins(BOTH | {"model-2.safetensors": ADDED}, tmp_path, tmp_path / "pending")
    assert find_pins(listed, tmp_path) == BOTH
    assert [file.bytes for file in known_files(listed, BOTH)] == [7, 3, 5]


def test_a_model_whose_files_are_all_listed_has_no_pins(tmp_path: Path) -> None:
    record_pins(BOTH, tmp_path, tmp_path / "pending")
    assert find_pins(hub_model(), tmp_path) == {}
    assert known_files(hub_model(), {}) == hub_model().files


def test_pins_are_the_hubs_only_if_it_vouches_for_all() -> None:
    assert are_of_the_hub({"config.json": STATED})
    assert not are_of_the_hub(BOTH) and not are_of_the_hub({})
