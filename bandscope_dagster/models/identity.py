"""What a model's output depends on: the identity that enters the lineage of every row it made."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Name, weights and parameters of a model as it was used."""

    name: str
    sha256: str  # of the weight file; where there are several, over their digests in the inventory's order
    params: dict[str, Any] = field(
        default_factory=dict[str, Any]
    )  # JSON-serialisable; all that changes output
