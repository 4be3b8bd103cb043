"""What a separator is: a model that splits fixed-length segments of a mixture into stems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """How a song is cut into segments, and how their outputs are added up again. All in frames at 44.1 kHz.

    Segment ``k`` of a pass covers ``[k * stride - lead, k * stride - lead + length)`` of the song; what lies
    outside the song is silence. A song has every segment that starts before its end. Where ``weights`` is
    None the outputs already carry their window and are simply added; otherwise each output is multiplied by
    ``weights`` (float32, ``(length,)``, all above zero) and the sum is divided by the summed weights.

    There is one pass over the song for each of ``leads``; the passes are averaged (the "shift trick" of
    Demucs, Défossez et al. 2019, section 4.4). Where ``centred`` is true, the model sees a segment that
    reaches past the song's end in the middle of ``length`` frames, with what comes before it as context, as
    demucs's ``apply_model`` does; only the frames from the segment's start to the song's end are used.
    """

    length: int
    stride: int
    leads: tuple[int, ...] = (0,)
    weights: NDArray[np.float32] | None = None
    centred: bool = False

    def __post_init__(self) -> None:
        if not self.leads or not all(0 <= lead < self.stride <= self.length for lead in self.leads):
            raise ValueError(
                f"a segment plan needs 0 <= lead < stride <= length, or frames are lost between segments; "
                f"found leads={self.leads}, stride={self.stride}, length={self.length}"
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
    def shorter_plans(self) -> tuple[SegmentPlan, ...]:
        """What to cut one segment into when even a single one does not fit into memory, longest first; empty
        where the model takes no other length."""
        ...

    @property
    def batch(self) -> int:
        """How many segments one call takes at most."""
        ...

    @property
    def device(self) -> str:
        """Where ``separate`` takes its segments and leaves its stems, as torch names it."""
        ...

    @property
    def normalised(self) -> bool:
        """Whether the model wants songs of zero mean and unit deviation."""
        ...

    def separate(self, segments: Tensor) -> Tensor:
        """``(batch, 2, length)`` float32 at 44.1 kHz → ``(batch, stems, 2, length)`` float32, on ``device``.

        ``length`` is that of ``plan`` or of one of ``shorter_plans``. Each segment's output depends on that
        segment alone.
        """
        ...
