"""The identity of a model: everything that its output depends on. The lineage of every row that it made records it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Name, weights and parameters of a model in use."""

    name: str
    sha256: str  # of the weight file; of several files, over their digests in the inventory's order
    # Everything that changes the output; JSON-serialisable.
    params: dict[str, Any] = field(default_factory=dict[str, Any])
