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

    If ``reflected`` is true, the ends of a song are treated as the published inference of SCNet and RoFormer does it
    (``demix`` of ZFTurbo/Music-Source-Separation-Training, one chunk in a batch): a song longer than twice the overlap
    is reflected at both ends by the overlap, and its first segment starts an overlap before the song. A shorter song
    is not; its first segment starts with the song and does not fade in. A segment that reaches past the end of all
    that is reflected there if it is more than half full, and else filled with silence. ``leads`` is then ``(0,)``, and
    the first and the last weight may be zero.
    """

    length: int
    stride: int
    leads: tuple[int, ...] = (0,)
    weights: NDArray[np.float32] | None = None
    centred: bool = False
    reflected: bool = False

    def __post_init__(self) -> None:
        if not self.leads or not all(0 <= lead < self.stride <= self.length for lead in self.leads):
            raise ValueError(
                f"a segment plan needs 0 <= lead < stride <= length, or frames are lost between segments; "
                f"found leads={self.leads}, stride={self.stride}, length={self.length}"
            )
        weights = self.weights
        if self.reflected and (weights is None or self.leads != (0,) or self.centred or self.overlap < 2):
            raise ValueError(
                "a reflected plan has weights, an overlap, one pass without a lead, and is not centred"
            )
        if weights is not None:
            inner = weights[1:-1] if self.reflected else weights
            if weights.shape != (self.length,) or weights.min() < 0 or inner.min() <= 0:
                ends = ", but for the ends of a reflected plan" if self.reflected else ""
                raise ValueError(
                    f"a segment plan's weights must be {self.length} values, all above zero{ends}"
                )

    @property
    def overlap(self) -> int:
        """The frames that a segment shares with the next."""
        return self.length - self.stride


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
