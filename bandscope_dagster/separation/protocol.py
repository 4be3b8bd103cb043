"""What a separator is: a model that splits fixed-length segments of a mixture into stems."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """How a song is cut into segments, and how their outputs are added up again. All in frames at 44.1 kHz.

    Segment ``k`` covers ``[k * stride - lead, k * stride - lead + length)`` of the song; what lies outside
    the song is silence. A song has every segment that starts before its end. Where ``weights`` is None the
    outputs already carry their window and are simply added; otherwise each output is multiplied by
    ``weights`` (float32, ``(length,)``, all above zero) and the sum is divided by the summed weights.
    """

    length: int
    stride: int
    lead: int = 0
    weights: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.lead < self.stride <= self.length:
            raise ValueError(
                f"a segment plan needs 0 <= lead < stride <= length, or frames are lost between segments; "
                f"found lead={self.lead}, stride={self.stride}, length={self.length}"
            )
        if self.weights is not None and (self.weights.shape != (self.length,) or self.weights.min() <= 0):
            raise ValueError(f"a segment plan's weights must be {self.length} values, all above zero")


class Separator(Protocol):
    """Splits a mixture into stems, segment by segment."""

    @property
    def identity(self) -> ModelIdentity:
        """The model as it is used: what enters the lineage of the stems."""
        ...

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems' names, in the order of the output axis."""
        ...

    @property
    def plan(self) -> SegmentPlan:
        """How songs are cut for this model."""
        ...

    @property
    def batch(self) -> int:
        """How many segments one call takes at best."""
        ...

    def separate(self, segments: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, 2, length)`` float32 at 44.1 kHz → ``(batch, stems, 2, length)`` float32.

        Each segment's output depends on that segment alone.
        """
        ...
