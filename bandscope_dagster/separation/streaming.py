"""Streaming separation in constant memory: several songs share the model's batches."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.out_of_memory import CallLimits, OutOfMemoryRetry
from bandscope_dagster.separation.overlap_add import SongOverlapAdd
from bandscope_dagster.separation.protocol import Separator

if TYPE_CHECKING:
    from torch import Tensor
    from torch.cuda import Event

Audio = NDArray[np.float32]


class NonFiniteStems(BandscopeError):
    """The model's output contains infinities or NaN, so it cannot be stored or tagged."""


@dataclass(frozen=True, slots=True)
class Separated:
    """The next finished samples of one song. Pieces come in order and without gaps."""

    song: str
    mixture: Audio  # (2, frames)
    stems: Audio  # (stems, 2, frames), aligned with the mixture
    last: bool  # this piece completes the song; it may have zero frames
    used: CallLimits  # the lowest limits of the model in this song so far


@dataclass(frozen=True, slots=True)
class SeparationFailed:
    """A segment of this song could not be separated; no more results of the song follow."""

    song: str
    error: Exception


Results = list[Separated | SeparationFailed]


@dataclass(slots=True, eq=False)
class _Song:
    name: str
    sums: SongOverlapAdd
    used: CallLimits
    gone: bool = False  # failed or dropped: its results that are still under way are ignored


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment that waits for the model."""

    song: _Song
    number: int  # of the pass
    index: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """The frames that a segment finished; the tensors may still be on their way from the device."""

    song: _Song
    mixture: Audio
    stems: Tensor
    last: bool
    used: CallLimits
    not_finite: Tensor  # (2,): number of such samples in the segment, and in its stems
    seconds: tuple[float, float]  # start and end of the segment in the song


@dataclass(frozen=True, slots=True)
class _Failure:
    song: _Song
    error: Exception


@dataclass(frozen=True, slots=True)
class _Batch:
    pieces: list[_Piece | _Failure]
    copied: Event | None = None  # None if the copies to the host are done already


class StreamingSeparation:
    """Separates several songs at once, block by block, with one model.

    Segments of all songs wait in one queue. The model runs when ``separator.batch`` of them wait, or at ``flush``, so
    the results of a call may belong to any song. Each song's pieces come in order, have as many frames in all as were
    pushed, and the final one is marked ``last``; or they end early with one ``SeparationFailed``. For each open song,
    only the segments that overlap or wait are in memory.

    On an accelerator, a batch's results are returned after the next batch has started. So the model does not wait while
    they are copied, or while the caller uses them.
    """

    def __init__(self, separator: Separator) -> None:
        self._separator = separator
        self._model = OutOfMemoryRetry(separator)
        self._songs: dict[str, _Song] = {}
        self._waiting: deque[_Segment] = deque()
        self._under_way: deque[_Batch] = deque()
        self._depth = 0 if separator.device == "cpu" else 1  # batches that may be under way between calls

    def open(self, song: str, normalisation: Normalisation) -> None:
        """Begin a song; ``normalisation`` is applied if the separator needs it."""
        if song in self._songs:
            raise ValueError(f"song {song!r} is open already")
        separator = self._separator
        chosen = normalisation if separator.normalised else Normalisation()
        sums = SongOverlapAdd(separator.plan, len(separator.stems), separator.device, chosen)
        self._songs[song] = _Song(song, sums, self._model.limits)

    def push(self, song: str, block: Audio) -> Results:
        """Take the song's next frames, ``(2, n)`` float32 at 44.1 kHz.

        The block is kept by reference and must not change afterwards. Blocks of a failed song are ignored until
        ``finish`` or ``drop`` closes it.
        """
        if block.ndim != 2 or block.shape[0] != 2 or block.dtype != np.float32:
            raise ValueError(
                f"song {song!r}: a block must be (2, n) float32, found {block.shape} {block.dtype}"
            )
        stream = self._find(song)
        if stream.gone:
            return []
        stream.sums.append(block)
        return self._enqueue(stream)

    def finish(self, song: str) -> Results:
        """End a song's input. Its remaining segments enter the queue; ``flush`` runs those that wait."""
        stream = self._find(song)
        if stream.gone:
            del self._songs[song]
            return []
        stream.sums.ended = True
        if stream.sums.complete:
            self._under_way.append(_Batch([self._end(stream)]))
            return self._collect()
        return self._enqueue(stream)

    def drop(self, song: str) -> None:
        """Remove a song whose input failed elsewhere, with its waiting segments. It has no more results."""
        dropped = self._songs.pop(song, None)
        if dropped is not None:
            self._discard(dropped)

    def flush(self) -> Results:
        """Run the model on all waiting segments, even if they do not fill a batch."""
        results: Results = []
        while self._waiting:
            results += self._run()
        return results + self._collect(depth=0)

    def _find(self, name: str) -> _Song:
        song = self._songs.get(name)
        if song is None:
            raise ValueError(f"song {name!r} is not open")
        if song.sums.ended:
            raise ValueError(f"song {name!r} is finished, but is not separated yet and got more input")
        return song

    def _enqueue(self, song: _Song) -> Results:
        self._waiting.extend(_Segment(song, *segment) for segment in song.sums.new_segments())
        results: Results = []
        while len(self._waiting) >= self._separator.batch:
            results += self._run()
        return results

    def _run(self) -> Results:
        """Start a batch with the segments that have waited longest; returns finished results."""
        count = min(self._separator.batch, len(self._waiting))
        entries = [self._waiting.popleft() for _ in range(count)]
        segments = self._segments(entries)
        outputs = self._model.separate(segments)
        pieces = [self._add(*each) for each in zip(entries, segments, outputs, strict=True)]
        self._under_way.append(_Batch(pieces, self._copied()))
        return self._collect()

    def _segments(self, entries: list[_Segment]) -> Tensor:
        """``(batch, 2, length)`` on the model's device."""
        import torch

        on_cuda = self._separator.device.startswith("cuda")
        shape = (len(entries), 2, self._separator.plan.length)
        segments = torch.empty(shape, pin_memory=on_cuda)  # only from pinned memory are copies asynchronous
        for entry, row in zip(entries, segments.numpy(), strict=True):
            entry.song.sums.cut(entry.number, entry.index, row)
        return segments.to(self._separator.device, non_blocking=on_cuda)

    def _add(self, entry: _Segment, segment: Tensor, output: Tensor | Exception) -> _Piece | _Failure:
        import torch

        song = entry.song
        song.used = song.used.least(self._model.limits)
        if isinstance(output, Exception):
            return _Failure(song, output)
        not_finite = torch.stack([_not_finite(each) for each in (segment, output)])
        seconds = song.sums.seconds(entry.number, entry.index)
        mixture, stems = song.sums.add(entry.number, output)
        return _Piece(
            song, mixture, _to_host(stems), song.sums.complete, song.used, _to_host(not_finite), seconds
        )

    def _end(self, song: _Song) -> _Piece:
        """A last piece of zero frames, for a song whose frames were all returned before its end was known."""
        import torch

        stems = torch.zeros((len(self._separator.stems), 2, 0))
        return _Piece(song, np.zeros((2, 0), np.float32), stems, True, song.used, torch.zeros(2), (0.0, 0.0))

    def _copied(self) -> Event | None:
        """An event at the end of the copies that were started on CUDA."""
        import torch

        if not self._separator.device.startswith("cuda"):
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._separator.device))
        return event

    def _collect(self, depth: int | None = None) -> Results:
        """The results of all batches under way except the last ``depth``."""
        results: Results = []
        while len(self._under_way) > (self._depth if depth is None else depth):
            batch = self._under_way.popleft()
            if batch.copied is not None:
                batch.copied.synchronize()
            for piece in batch.pieces:
                results += self._results(piece)
        return results

    def _results(self, piece: _Piece | _Failure) -> Results:
        song = piece.song
        if song.gone:
            return []
        if isinstance(piece, _Failure):
            return [self._fail(song, piece.error)]
        if piece.not_finite[1]:
            return [self._fail(song, self._non_finite(piece))]
        if piece.last:
            del self._songs[song.name]
        elif not piece.mixture.shape[1]:
            return []
        return [Separated(song.name, piece.mixture, piece.stems.numpy(), piece.last, piece.used)]

    def _fail(self, song: _Song, error: Exception) -> SeparationFailed:
        if song.sums.ended:
            del self._songs[song.name]
        self._discard(song)
        return SeparationFailed(song.name, error)

    def _discard(self, song: _Song) -> None:
        song.gone = True
        self._waiting = deque(entry for entry in self._waiting if entry.song is not song)

    def _non_finite(self, piece: _Piece) -> NonFiniteStems:
        begin, end = piece.seconds
        where = f"song {piece.song.name!r}, {begin:.1f} to {end:.1f} s"
        of_mixture, of_stems = (int(count) for count in piece.not_finite)
        if of_mixture:
            return NonFiniteStems(
                f"{where}: {of_mixture} samples of the mixture are not finite; repair the upload"
            )
        return NonFiniteStems(
            f"{where}: {of_stems} samples from {self._separator.identity.name} are not finite, though the "
            f"mixture is; retry with BANDSCOPE_DEVICE=cpu or another BANDSCOPE_SEPARATOR"
        )


def _not_finite(samples: Tensor) -> Tensor:
    """The number of samples that are not finite, on their device.

    On the CPU, finite extremes prove first that all samples are finite, in a twentieth of the time. On other devices
    that test would have to wait for the device.
    """
    import torch

    if samples.device.type == "cpu" and torch.isfinite(torch.stack(torch.aminmax(samples))).all():
        return torch.tensor(0)
    return torch.count_nonzero(samples - samples)  # x - x is 0 if x is finite, and else NaN, which counts


def _to_host(tensor: Tensor) -> Tensor:
    """The tensor in host memory; from CUDA, an asynchronous copy to pinned memory."""
    return tensor.to("cpu", non_blocking=tensor.is_cuda)
