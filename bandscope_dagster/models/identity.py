"""The identity of a model: everything that its output depends on. The lineage of each file records the identity."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Name, weights and parameters of a model in use."""

    name: str
    # Of the weight file; if there are several: SHA-256 over their digests, in the order of the inventory.
    sha256: str
    # Everything that changes the output; JSON-serialisable.
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    # Weights file → its SHA-256, for separators: the lineage of a preset has those of each member.
    files: Mapping[str, str] = field(default_factory=dict[str, str])
