"""The ``Separator`` protocol: a model that splits fixed-length segments of a mixture into stems."""

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
    """Rules that cut a song into segments and add up their outputs. All numbers are frames at 44.1 kHz.

    Segment ``k`` of a pass covers ``[k * stride - lead, k * stride - lead + length)`` of the song; outside the song
    there is silence. A song has every segment that starts before its end. If ``weights`` is None, the outputs are
    windowed already and are simply added. Otherwise each output is multiplied by ``weights`` (float32, ``(length,)``,
    all above zero), and the sum is divided by the summed weights.

    There is one pass over the song for each of ``leads``; the passes are averaged (the "shift trick" of Demucs,
    Défossez et al. 2019, section 4.4). If ``centred`` is true, a segment that reaches past the song's end is put in the
    middle of the model's ``length`` frames, with the frames before it as context, as demucs's ``apply_model`` does;
    only the frames from the segment's start to the song's end are used.
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

    identity: ModelIdentity  # the model and its parameters, as the lineage of the stems records them
    stems: tuple[str, ...]  # names, in the order of the output axis
    plan: SegmentPlan  # the cuts that this model needs
    shorter_plans: tuple[SegmentPlan, ...]
    """Plans to cut one segment further if a single one does not fit into memory, longest first.

    Empty if the model takes no other length.
    """
    batch: int  # the most segments in one call
    device: str  # of ``separate``'s segments and stems, as torch names it
    normalised: bool  # True if the model needs songs of zero mean and unit deviation

    def separate(self, segments: Tensor) -> Tensor:
        """``(batch, 2, length)`` float32 at 44.1 kHz → ``(batch, stems, 2, length)`` float32, on ``device``.

        ``length`` is that of ``plan`` or of one of ``shorter_plans``. Each segment's output depends on that
        segment alone.
        """
        ...
