"""A small model in shards, in a repository of the hub that also has files that must not be loaded."""

import json
from pathlib import Path

import numpy as np
from hub_server import REPOSITORY, REVISION
from safetensors.numpy import save

from bandscope_dagster.models.inventory import HubSource, Model, UnlistedFiles

SHARDS = tuple(f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3))
INDEX = "model.safetensors.index.json"


def _shard(number: int) -> bytes:
    """A shard with 24 kB of weights."""
    return save({f"layer{number}.weight": np.random.default_rng(number).random((100, 60), np.float32)})


WANTED: dict[str, bytes] = {
    "config.json": b'{"model_type": "tiny"}',
    INDEX: json.dumps({"weight_map": {f"layer{n}.weight": name for n, name in enumerate(SHARDS)}}).encode(),
    **{name: _shard(number) for number, name in enumerate(SHARDS)},
}
UNWANTED: dict[str, bytes] = {
    "README.md": b"A model.",
    "pytorch_model.bin": b"a pickle",
    "spk_dict.pt": b"a pickle",
    "modeling_tiny.py": b"raise SystemExit",
}


def sharded_model() -> Model:
    """The model of these files; the inventory has only its revision."""
    return Model(
        name="sharded",
        kind="tagger",
        embedded=False,
        description="Random weights.",
        licence="MIT",
        citation="",
        files=(),
        source=HubSource(url="", repository=REPOSITORY, revision=REVISION),
        unlisted=UnlistedFiles(("*.safetensors", "config.json"), (INDEX, "vocab.json")),
    )


def write_files(contents: dict[str, bytes], folder: Path) -> Path:
    """Make ``folder`` with these files; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder
