"""Retry of a model call that ran out of memory: with fewer segments, then with shorter ones.

The other memory fallback, for taggers, is in ``tagging/window_queue.py``.
"""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from bandscope_dagster.device import is_out_of_memory
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.overlap_add import SongOverlapAdd
from bandscope_dagster.separation.protocol import SegmentPlan, Separator

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Upper limits of a model call; lower than the settings if memory ran out."""

    device: str  # as torch names it
    batch: int  # segments in one call, at most
    segment: int  # frames in one segment, at 44.1 kHz

    def least(self, other: CallLimits) -> CallLimits:
        """The lower value of each limit; both are for the same device."""
        return CallLimits(self.device, min(self.batch, other.batch), min(self.segment, other.segment))

    def to_json(self) -> str:
        """One JSON object with the names of the fields."""
        return json.dumps(asdict(self))


class OutOfMemoryRetry:
    """Calls a separator. If memory runs out, it halves the batch, then the segment, before it gives up.

    It keeps the lower limits for all later calls.
    """

    def __init__(self, separator: Separator) -> None:
        self._separator = separator
        self._batch = separator.batch
        self._plans = [separator.plan, *separator.shorter_plans]  # the first is in use

    @property
    def limits(self) -> CallLimits:
        """The limits of the next call."""
        return CallLimits(self._separator.device, self._batch, self._plans[0].length)

    def separate(self, segments: Tensor) -> list[Tensor | Exception]:
        """The stems of each segment, ``(stems, 2, length)``, or the error that this segment raises when alone.

        ``segments`` is ``(n, 2, length)`` on the separator's device; any n.
        """
        results: list[Tensor | Exception] = []
        while len(results) < len(segments):
            results += self._attempt(segments[len(results) : len(results) + self._batch])
        return results

    def _attempt(self, segments: Tensor) -> list[Tensor | Exception]:
        """The results of at most ``self._batch`` segments."""
        name = self._separator.identity.name
        try:
            if self._plans[0].length < segments.shape[-1]:
                return [self._in_parts(segment, self._plans[0]) for segment in segments]
            return list(self._call(segments))
        except Exception as error:
            # Keeps the traceback's lines and frees the tensors of the failed call.
            traceback.clear_frames(error.__traceback__)
            failure, reason = error, f"{type(error).__name__}: {error}"
        if is_out_of_memory(failure) and self._shrink(len(segments)):
            limits = self.limits
            logger.warning(
                "%s ran out of memory on %s and continues with %d segments of %d frames at a time (%s)",
                *(name, limits.device, limits.batch, limits.segment, reason),
            )
            return self.separate(segments)
        if len(segments) == 1:
            return [failure]
        logger.warning("%s failed on %d segments, trying one by one: %s", name, len(segments), reason)
        return [result for segment in segments.split(1) for result in self._attempt(segment)]

    def _shrink(self, count: int) -> bool:
        """Lower the limits below a failed call of ``count`` segments; False if they are the lowest already."""
        import torch

        if count > 1:
            self._batch = count // 2
        elif len(self._plans) > 1:
            self._plans.pop(0)
        else:
            return False
        if self._separator.device.startswith("cuda"):
            torch.cuda.empty_cache()  # the larger call left pieces of the wrong size in torch's cache
        return True

    def _in_parts(self, segment: Tensor, plan: SegmentPlan) -> Tensor:
        """A segment's stems by overlap-add of shorter segments within it."""
        import torch

        device = self._separator.device
        whole = SongOverlapAdd(plan, len(self._separator.stems), device, Normalisation())
        whole.append(segment.cpu().numpy())
        whole.ended = True
        pieces: list[Tensor] = []
        for number, index in whole.new_segments():
            part = np.empty((2, plan.length), np.float32)
            whole.cut(number, index, part)
            pieces.append(whole.add(number, self._call(torch.from_numpy(part).to(device)[None])[0])[1])
        return torch.cat(pieces, dim=-1)

    def _call(self, segments: Tensor) -> Tensor:
        outputs = self._separator.separate(segments)
        expected = (len(segments), len(self._separator.stems), *segments.shape[1:])
        if tuple(outputs.shape) != expected:
            raise ValueError(
                f"{self._separator.identity.name} returned {tuple(outputs.shape)} instead of {expected}"
            )
        return outputs
