"""Overlap-add of one song's segments, which returns samples as soon as no later segment reaches them.

The result equals ``demucs.apply.apply_model(split=True, shifts=0)`` on the whole song (demucs 4.1, apply.py), or for a
reflected plan ``demix`` of ZFTurbo/Music-Source-Separation-Training with one chunk in a batch; but only the overlap is
in memory. The sums stay on the model's device; the mixture stays in host memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.protocol import SegmentPlan

if TYPE_CHECKING:
    from torch import Tensor

Audio = NDArray[np.float32]


class _Pass:
    """One pass over a song: its segments, and the sums to which later segments add. All numbers are frames."""

    def __init__(
        self, plan: SegmentPlan, lead: int, stems: int, device: str, normalisation: Normalisation
    ) -> None:
        import torch

        self.queued = 0  # segments
        self.added = 0  # segments
        self._plan = plan
        # None: not known before the song's length is.
        self._lead: int | None = None if plan.reflected else lead
        self._normalised = normalisation != Normalisation()
        self._mean, self._scale = torch.tensor([normalisation.mean, normalisation.scale], device=device)
        overlap = plan.overlap
        self._weights = None if plan.weights is None else torch.from_numpy(plan.weights).to(device)
        self._sum = torch.zeros((stems, 2, overlap), device=device)
        self._summed_weights = torch.zeros(overlap, device=device)
        self._finished = torch.zeros((stems, 2, 0), device=device)

    def start(self, index: int) -> int:
        """The frame of the song where a segment starts; negative if that is before the song."""
        return index * self._plan.stride - (self._lead or 0)

    @property
    def reflection(self) -> int:
        """The frames by which the song is reflected at each end."""
        return (self._lead or 0) if self._plan.reflected else 0

    def ready(self, received: int, *, ended: bool) -> int:
        """The number of segments that the first ``received`` frames are enough for."""
        plan = self._plan
        if self._lead is None:
            long = received > 2 * plan.overlap
            if not (long or ended):
                return 0
            self._lead = plan.overlap if long else 0
        if not ended:
            return max(0, (received + self._lead - plan.length) // plan.stride + 1)
        return -(-(received + self._lead) // plan.stride) if received else 0

    def window(self, index: int, end: int) -> int:
        """The first frame of a segment's input to the model, in a song of which ``end`` frames are known."""
        start = self.start(index)
        missing = max(0, start + self._plan.length - end)
        return start - missing // 2 if self._plan.centred else start

    def reaches_back_to(self, received: int) -> int:
        """The first frame of the mixture that a segment may still need, if ``received`` frames are known."""
        start = self.start(self.added) - (self._plan.length // 2 if self._plan.centred else 0)
        return min(start, received - 1 - self.reflection) if self._plan.reflected else start

    @property
    def finished(self) -> int:
        """The number of finished frames that can be taken."""
        return self._finished.shape[-1]

    def add(self, output: Tensor, end: int) -> None:
        """Add the next segment's ``(stems, 2, length)``; frames that no later segment reaches are then finished.

        Finished stems are at the level of the mixture. A model on the CPU waits for this call, so it reads and writes
        each sample as rarely as possible.
        """
        import torch
        from torch.nn import functional as F

        length, stride, overlap, weights = (
            self._plan.length,
            self._plan.stride,
            self._plan.overlap,
            self._weights,
        )
        start = self.start(self.added)
        if weights is not None and self._plan.reflected and start == 0 and self.added == 0:
            weights = _without_fade_in(weights)
        if self._plan.centred and start + length > end:
            offset = start - self.window(self.added, end)
            output = F.pad(output[..., offset : offset + end - start], (0, start + length - end))
        total = output.clone() if weights is None else output * weights
        total[..., :overlap] += self._sum
        self._sum = total[..., stride:].clone()
        finished, level = total[..., :stride], self._scale
        if weights is not None:
            summed = weights.clone()
            summed[:overlap] += self._summed_weights
            self._summed_weights = summed[stride:].clone()
            level = level / summed[:stride]
        if weights is not None or self._normalised:
            finished = torch.addcmul(self._mean, finished, level)
        self.added += 1
        inside = finished[..., max(0, -start) : max(0, end - start)]
        self._finished = torch.cat([self._finished, inside], dim=-1) if self.finished else inside

    def take(self, frames: int) -> Tensor:
        """The next finished frames, ``(stems, 2, frames)``, which are then removed."""
        taken, self._finished = self._finished[..., :frames], self._finished[..., frames:]
        return taken


class SongOverlapAdd:
    """Overlap-add of one song over all passes. It returns frames in order, once every pass is done with them.

    It holds the mixture from the first frame that a later segment may need, and the sums of every pass.
    """

    def __init__(self, plan: SegmentPlan, stems: int, device: str, normalisation: Normalisation) -> None:
        self.ended = False
        self._plan = plan
        self._normalisation = normalisation
        self._passes = [_Pass(plan, lead, stems, device, normalisation) for lead in plan.leads]
        self._received = 0  # frames
        self._returned = 0  # frames
        self._kept = 0  # the first frame that is still held
        self._blocks: list[Audio] = []  # the mixture from frame _kept

    def append(self, block: Audio) -> None:
        """Append the song's next frames, ``(2, n)``; the block is kept by reference."""
        self._blocks.append(block)
        self._received += block.shape[1]

    def new_segments(self) -> list[tuple[int, int]]:
        """The segments that can be cut now and were not returned before, each as (pass, index)."""
        found: list[tuple[int, int]] = []
        for number, one in enumerate(self._passes):
            ready = one.ready(self._received, ended=self.ended)
            found += [(number, index) for index in range(one.queued, ready)]
            one.queued = ready
        return found

    @property
    def complete(self) -> bool:
        """True if the song has ended and all its segments are added."""
        return self.ended and all(one.added == one.ready(self._received, ended=True) for one in self._passes)

    def cut(self, number: int, index: int, out: Audio) -> None:
        """Fill ``out``, ``(2, length)``, with a segment's input to the model; outside the song it is silence."""
        one = self._passes[number]
        low_wanted = one.window(index, self._received)
        if self._plan.reflected and (low_wanted < 0 or low_wanted + self._plan.length > self._received):
            self._reflect(low_wanted, one.reflection, out)
            return
        low, high = max(low_wanted, 0), min(low_wanted + self._plan.length, self._received)
        out[:] = 0
        mixture = self._mixture()[:, low - self._kept : high - self._kept]
        out[:, low - low_wanted : high - low_wanted] = self._normalisation.apply(mixture)

    def _reflect(self, start: int, reflection: int, out: Audio) -> None:
        """Fill ``out`` from frame ``start`` of a song that is reflected by ``reflection`` frames at both ends.

        What reaches past the end of that is reflected there, if it is less than half of the segment; else it is silent.
        """
        song, length = self._received, self._plan.length
        end = song + reflection
        frames = np.arange(start, start + length)
        filled = length
        if end - start > length // 2:
            frames = np.where(frames >= end, 2 * (end - 1) - frames, frames)
        else:
            filled = min(length, end - start)
        frames = np.abs(np.where(frames >= song, 2 * (song - 1) - frames, frames))
        out[:, filled:] = 0
        out[:, :filled] = self._normalisation.apply(self._mixture()[:, frames[:filled] - self._kept])

    def seconds(self, number: int, index: int) -> tuple[float, float]:
        """Start and end of a segment in the song, in seconds."""
        start = self._passes[number].start(index)
        return max(start, 0) / SAMPLE_RATE, min(start + self._plan.length, self._received) / SAMPLE_RATE

    def add(self, number: int, output: Tensor) -> tuple[Audio, Tensor]:
        """Add the output of a pass's next segment, ``(stems, 2, length)`` on the model's device.

        Returns the newly finished frames: the mixture ``(2, n)`` and the stems ``(stems, 2, n)`` on the device, aligned
        and at the level of the mixture; n may be 0.
        """
        self._passes[number].add(output, self._received)
        frames = min(one.finished for one in self._passes)
        pieces = [one.take(frames) for one in self._passes]
        stems = pieces[0] if len(pieces) == 1 else sum(pieces[1:], pieces[0]) / len(pieces)
        start = self._returned - self._kept
        mixture = self._mixture()[:, start : start + frames]
        self._returned += frames
        self._forget()
        return mixture, stems

    def _mixture(self) -> Audio:
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate([np.zeros((2, 0), np.float32), *self._blocks], axis=1)]
        return self._blocks[0]

    def _forget(self) -> None:
        needed = min(self._returned, *(max(0, one.reaches_back_to(self._received)) for one in self._passes))
        self._blocks = [self._mixture()[:, needed - self._kept :]]
        self._kept = needed


def _without_fade_in(weights: Tensor) -> Tensor:
    """The weights, with those before the first of the largest raised to it."""
    raised = weights.clone()
    raised[: int(weights.argmax())] = weights.max()
    return raised
