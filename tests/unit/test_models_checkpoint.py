"""A model is complete if every shard that its index names exists and is readable."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from sharded_model import INDEX, SHARDS, WANTED

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.checkpoint import require_all_shards, require_readable

WEIGHTS = save({"weight": np.arange(100, dtype=np.float32)})


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / INDEX).write_bytes(WANTED[INDEX])
    return tmp_path / INDEX


def test_a_model_is_whole_with_every_shard_that_its_index_names(index: Path) -> None:
    require_all_shards({*SHARDS, "config.json"}, index, "here")
    with pytest.raises(
        ModelFileError, match=rf"The model in here is incomplete: it has no {SHARDS[1]}, which {INDEX}"
    ):
        require_all_shards({SHARDS[0], SHARDS[2]}, index, "here")


def test_a_model_without_an_index_is_whole_with_its_one_file(tmp_path: Path) -> None:
    require_all_shards({"model.safetensors"}, None, "here")
    with pytest.raises(ModelFileError, match=rf"no model\.safetensors, and no {INDEX}"):
        require_all_shards(SHARDS, None, "here")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '"weight_map"', "\x80", "null"]
)
def test_an_index_that_names_no_shards_is_refused(content: str, index: Path) -> None:
    index.write_text(content, "latin-1")
    with pytest.raises(ModelFileError, match=INDEX):
        require_all_shards(SHARDS, index, "here")


def test_an_index_cannot_name_a_file_of_another_folder(index: Path) -> None:
    index.write_text(json.dumps({"weight_map": {"weight": "../other/model.safetensors"}}))
    with pytest.raises(ModelFileError, match=r"it has no \.\./other/model\.safetensors"):
        require_all_shards({"model.safetensors"}, index, "here")


@pytest.mark.parametrize(
    "content",
    [b"", b"1234567", WEIGHTS[:-1], WEIGHTS[:20], WEIGHTS + b"\0", b"\x80\x04pickle" * 99, bytes(1000)],
    ids=["empty", "too short for a header", "cut off", "cut in the header", "too long", "a pickle", "zeros"],
)
def test_what_is_no_whole_safetensors_file_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WEIGHTS)
    require_readable(path)
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.safetensors is not a complete safetensors file"):
        require_readable(path)
