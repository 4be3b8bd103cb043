"""Separation in constant memory: songs stream in, their segments share batches, finished samples come out."""

import logging
import traceback
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.separation.protocol import SegmentPlan, Separator

logger = logging.getLogger(__name__)

Audio = NDArray[np.float32]


class NonFiniteStems(BandscopeError):
    """The model's output holds infinities or NaN; nothing of it can be stored or tagged."""


@dataclass(frozen=True, slots=True)
class Separated:
    """The next finished samples of one song: pieces come in order and without gaps."""

    song: str
    mixture: Audio  # (2, frames)
    stems: Audio  # (stems, 2, frames), aligned with the mixture
    last: bool  # the song is complete with this piece, which may hold zero frames


@dataclass(frozen=True, slots=True)
class SeparationFailed:
    """One song's own segment could not be separated; nothing more comes of this song."""

    song: str
    error: Exception


class _Song:
    """What is still needed of one song: its mixture from the first frame that was not given out, and the sums
    to which later segments add."""

    def __init__(self, name: str, plan: SegmentPlan, stems: int) -> None:
        overlap = plan.length - plan.stride
        self.name = name
        self.ended = False
        self.queued = 0  # segments
        self._plan = plan
        self._stems = stems
        self._received = 0  # frames
        self._given = 0  # frames
        self._added = 0  # segments
        self._blocks: list[Audio] = []  # the mixture from frame _given
        self._sum = np.zeros((stems, 2, overlap), np.float32)
        self._summed_weights = np.zeros(overlap, np.float32)

    @property
    def ready(self) -> int:
        """How many segments can be cut in all from what was received."""
        plan = self._plan
        if not self.ended:
            return max(0, (self._received + plan.lead - plan.length) // plan.stride + 1)
        return -(-(self._received + plan.lead) // plan.stride) if self._received else 0

    @property
    def complete(self) -> bool:
        """Whether the song has ended and all its segments are added."""
        return self.ended and self._added == self.ready

    def append(self, block: Audio) -> None:
        self._blocks.append(block)
        self._received += block.shape[1]

    def segment(self, index: int) -> Audio:
        """``(2, length)``, with silence for what lies outside the song."""
        start = self._start(index)
        low, high = max(start, 0), min(start + self._plan.length, self._received)
        segment = np.zeros((2, self._plan.length), np.float32)
        segment[:, low - start : high - start] = self._mixture()[:, low - self._given : high - self._given]
        return segment

    def seconds(self, index: int) -> tuple[float, float]:
        """Where a segment lies in the song."""
        start = self._start(index)
        return max(start, 0) / SAMPLE_RATE, min(start + self._plan.length, self._received) / SAMPLE_RATE

    def add(self, output: Audio) -> Separated:
        """Add the next segment's ``(stems, 2, length)``; what no later segment reaches is finished."""
        stride, weights = self._plan.stride, self._plan.weights
        overlap = self._plan.length - stride
        total = output.copy() if weights is None else output * weights
        total[..., :overlap] += self._sum
        self._sum = total[..., stride:].copy()
        finished = total[..., :stride]
        if weights is not None:
            summed = weights.copy()
            summed[:overlap] += self._summed_weights
            self._summed_weights = summed[stride:].copy()
            finished /= summed[:stride]

        before_the_song = self._given - self._start(self._added)
        self._added += 1
        frames = min(self._start(self._added), self._received) - self._given
        return self._give(frames, finished[..., before_the_song : before_the_song + frames])

    def end(self) -> Separated:
        """The piece of zero frames that ends a song of which everything was already given out."""
        return self._give(0, np.zeros((self._stems, 2, 0), np.float32))

    def _start(self, index: int) -> int:
        return index * self._plan.stride - self._plan.lead

    def _mixture(self) -> Audio:
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate([np.zeros((2, 0), np.float32), *self._blocks], axis=1)]
        return self._blocks[0]

    def _give(self, frames: int, stems: Audio) -> Separated:
        mixture = self._mixture()
        self._blocks = [mixture[:, frames:]]
        self._given += frames
        return Separated(self.name, mixture[:, :frames], stems, last=self.complete)


class StreamingSeparation:
    """Separates several songs at once, block by block, with one model.

    Segments of all songs wait in one queue; the model runs when ``separator.batch`` of them wait, or at
    ``flush``. So the results of a call may belong to any song. For each song they are, in order, pieces with
    exactly as many frames as were pushed, of which the final one is marked ``last``; or they break off with
    one ``SeparationFailed``. Memory holds, for each open song, only the segments that overlap or wait.
    """

    def __init__(self, separator: Separator) -> None:
        self._separator = separator
        self._songs: dict[str, _Song] = {}
        self._failed: set[str] = set()  # reported, but their input has not ended yet
        self._waiting: deque[tuple[str, int]] = deque()  # song, segment

    def push(self, song: str, block: Audio) -> list[Separated | SeparationFailed]:
        """Take the song's next frames, ``(2, n)`` float32 at 44.1 kHz; the first block opens the song.

        The block is kept by reference and must not change afterwards. Blocks of a song that has failed are
        ignored until ``finish`` or ``drop`` closes it.
        """
        if block.ndim != 2 or block.shape[0] != 2 or block.dtype != np.float32:
            raise ValueError(
                f"song {song!r}: a block must be (2, n) float32, found {block.shape} {block.dtype}"
            )
        if song in self._failed:
            return []
        stream = self._open(song)
        stream.append(block)
        return self._enqueue(stream)

    def finish(self, song: str) -> list[Separated | SeparationFailed]:
        """The song has no more input: its remaining segments enter the queue; ``flush`` runs what waits."""
        if song in self._failed:
            self._failed.remove(song)
            return []
        stream = self._open(song)
        stream.ended = True
        if stream.complete:
            del self._songs[song]
            return [stream.end()]
        return self._enqueue(stream)

    def drop(self, song: str) -> None:
        """Forget a song with all that waits of it: its input failed elsewhere. Nothing more comes of it."""
        self._songs.pop(song, None)
        self._failed.discard(song)
        self._waiting = deque(entry for entry in self._waiting if entry[0] != song)

    def flush(self) -> list[Separated | SeparationFailed]:
        """Run the model on all segments that wait, without waiting for a full batch."""
        results: list[Separated | SeparationFailed] = []
        while self._waiting:
            results += self._run()
        return results

    def _open(self, name: str) -> _Song:
        song = self._songs.get(name)
        if song is None:
            song = _Song(name, self._separator.plan, stems=len(self._separator.stems))
            self._songs[name] = song
        if song.ended:
            raise ValueError(f"song {name!r} is finished, but more input came for it before it was separated")
        return song

    def _enqueue(self, song: _Song) -> list[Separated | SeparationFailed]:
        self._waiting.extend((song.name, index) for index in range(song.queued, song.ready))
        song.queued = song.ready
        results: list[Separated | SeparationFailed] = []
        while len(self._waiting) >= self._separator.batch:
            results += self._run()
        return results

    def _run(self) -> list[Separated | SeparationFailed]:
        """One call of the model, on the segments that have waited longest."""
        entries = [self._waiting.popleft() for _ in range(min(self._separator.batch, len(self._waiting)))]
        segments = np.stack([self._songs[name].segment(index) for name, index in entries])
        results: list[Separated | SeparationFailed] = []
        for (name, index), segment, output in zip(entries, segments, self._separate(segments), strict=True):
            song = self._songs.get(name)
            if song is None:  # an earlier segment of this batch failed it
                continue
            if isinstance(output, Exception):
                results.append(self._fail(song, output))
            elif not np.isfinite(output).all():
                results.append(self._fail(song, self._non_finite(song, index, segment, output)))
            else:
                results.append(song.add(output))
                if song.complete:
                    del self._songs[name]
        return results

    def _separate(self, segments: Audio) -> list[Audio | Exception]:
        """The output of each segment, or the error that this segment raises when it is alone."""
        name = self._separator.identity.name
        try:
            outputs = self._separator.separate(segments)
            expected = (len(segments), len(self._separator.stems), *segments.shape[1:])
            if outputs.shape != expected:
                raise ValueError(f"{name} returned an array of shape {outputs.shape} instead of {expected}")
            return list(outputs)
        except Exception as error:
            traceback.clear_frames(
                error.__traceback__
            )  # keeps the lines, frees the tensors of the failed call
            if len(segments) == 1:
                return [error]
            logger.warning("%s failed on %d segments, trying one by one: %r", name, len(segments), error)
        return [result for i in range(len(segments)) for result in self._separate(segments[i : i + 1])]

    def _fail(self, song: _Song, error: Exception) -> SeparationFailed:
        self.drop(song.name)
        if not song.ended:
            self._failed.add(song.name)
        return SeparationFailed(song.name, error)

    def _non_finite(self, song: _Song, index: int, segment: Audio, output: Audio) -> NonFiniteStems:
        begin, end = song.seconds(index)
        where = f"song {song.name!r}, {begin:.1f} to {end:.1f} s"
        if bad := int(np.count_nonzero(~np.isfinite(segment))):
            return NonFiniteStems(f"{where}: {bad} samples of the mixture are not finite; repair the upload")
        bad = int(np.count_nonzero(~np.isfinite(output)))
        return NonFiniteStems(
            f"{where}: {bad} of {output.size} samples from {self._separator.identity.name} are not finite, "
            f"though the mixture is; run it again with BANDSCOPE_DEVICE=cpu or another BANDSCOPE_SEPARATOR"
        )
