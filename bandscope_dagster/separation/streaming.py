"""Separation in constant memory: songs stream in, their segments share batches, finished samples come out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.out_of_memory import Used, WithinMemory
from bandscope_dagster.separation.overlap_add import SongOverlapAdd
from bandscope_dagster.separation.protocol import Separator

if TYPE_CHECKING:
    from torch import Tensor
    from torch.cuda import Event

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
    used: Used  # the least to which the model was limited in this song so far


@dataclass(frozen=True, slots=True)
class SeparationFailed:
    """One song's own segment could not be separated; nothing more comes of this song."""

    song: str
    error: Exception


Results = list[Separated | SeparationFailed]


@dataclass(slots=True, eq=False)
class _Song:
    name: str
    sums: SongOverlapAdd
    used: Used
    gone: bool = False  # failed or dropped: what is under way of it is thrown away


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment that waits for the model."""

    song: _Song
    number: int  # of the pass
    index: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """What a segment finished; the tensors may still be on their way from the device."""

    song: _Song
    mixture: Audio
    stems: Tensor
    last: bool
    used: Used
    not_finite: Tensor  # (2,): how many samples of the segment, and of its stems
    seconds: tuple[float, float]  # where the segment lies in the song


@dataclass(frozen=True, slots=True)
class _Failure:
    song: _Song
    error: Exception


@dataclass(frozen=True, slots=True)
class _Batch:
    pieces: list[_Piece | _Failure]
    copied: Event | None = None  # None where the copies to the host were waited for


class StreamingSeparation:
    """Separates several songs at once, block by block, with one model.

    Segments of all songs wait in one queue; the model runs when ``separator.batch`` of them wait, or at
    ``flush``. So the results of a call may belong to any song. For each song they are, in order, pieces with
    exactly as many frames as were pushed, of which the final one is marked ``last``; or they break off with
    one ``SeparationFailed``. Memory holds, for each open song, only the segments that overlap or wait.

    On an accelerator a batch's results are given out when the next batch has been started, so that copying
    them, and what the caller does with them, takes no time from the model.
    """

    def __init__(self, separator: Separator) -> None:
        self._separator = separator
        self._within_memory = WithinMemory(separator)
        self._songs: dict[str, _Song] = {}
        self._waiting: deque[_Segment] = deque()
        self._under_way: deque[_Batch] = deque()
        self._depth = 0 if separator.device == "cpu" else 1  # batches whose results may be under way

    def open(self, song: str, normalisation: Normalisation) -> None:
        """Begin a song; it is normalised for the model where the separator wants that."""
        if song in self._songs:
            raise ValueError(f"song {song!r} is open already")
        separator = self._separator
        chosen = normalisation if separator.normalised else Normalisation()
        sums = SongOverlapAdd(separator.plan, len(separator.stems), separator.device, chosen)
        self._songs[song] = _Song(song, sums, self._within_memory.used)

    def push(self, song: str, block: Audio) -> Results:
        """Take the song's next frames, ``(2, n)`` float32 at 44.1 kHz.

        The block is kept by reference and must not change afterwards. Blocks of a song that has failed are
        ignored until ``finish`` or ``drop`` closes it.
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
        """The song has no more input: its remaining segments enter the queue; ``flush`` runs what waits."""
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
        """Forget a song with all that waits of it: its input failed elsewhere. Nothing more comes of it."""
        dropped = self._songs.pop(song, None)
        if dropped is not None:
            self._discard(dropped)

    def flush(self) -> Results:
        """Run the model on all segments that wait, without waiting for a full batch."""
        results: Results = []
        while self._waiting:
            results += self._run()
        return results + self._collect(depth=0)

    def _find(self, name: str) -> _Song:
        song = self._songs.get(name)
        if song is None:
            raise ValueError(f"song {name!r} is not open")
        if song.sums.ended:
            raise ValueError(f"song {name!r} is finished, but more input came for it before it was separated")
        return song

    def _enqueue(self, song: _Song) -> Results:
        self._waiting.extend(_Segment(song, *segment) for segment in song.sums.new_segments())
        results: Results = []
        while len(self._waiting) >= self._separator.batch:
            results += self._run()
        return results

    def _run(self) -> Results:
        """Start one batch, of the segments that have waited longest; gives out what is done."""
        count = min(self._separator.batch, len(self._waiting))
        entries = [self._waiting.popleft() for _ in range(count)]
        segments = self._segments(entries)
        outputs = self._within_memory.separate(segments)
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
        song.used = song.used.least(self._within_memory.used)
        if isinstance(output, Exception):
            return _Failure(song, output)
        not_finite = torch.stack([_not_finite(each) for each in (segment, output)])
        seconds = song.sums.seconds(entry.number, entry.index)
        mixture, stems = song.sums.add(entry.number, output)
        return _Piece(
            song, mixture, _to_host(stems), song.sums.complete, song.used, _to_host(not_finite), seconds
        )

    def _end(self, song: _Song) -> _Piece:
        """The piece of zero frames that ends a song of which everything was separated before its end was known."""
        import torch

        stems = torch.zeros((len(self._separator.stems), 2, 0))
        return _Piece(song, np.zeros((2, 0), np.float32), stems, True, song.used, torch.zeros(2), (0.0, 0.0))

    def _copied(self) -> Event | None:
        """The moment at which the copies that were started on CUDA are done."""
        import torch

        if not self._separator.device.startswith("cuda"):
            return None
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._separator.device))
        return event

    def _collect(self, depth: int | None = None) -> Results:
        """The results of all batches under way but the last ``depth``."""
        results: Results = []
        while len(self._under_way) > (self._depth if depth is None else depth):
            batch = self._under_way.popleft()
            if batch.copied is not None:
                batch.copied.synchronize()
            for piece in batch.pieces:
                results += self._given_out(piece)
        return results

    def _given_out(self, piece: _Piece | _Failure) -> Results:
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
            f"mixture is; run it again with BANDSCOPE_DEVICE=cpu or another BANDSCOPE_SEPARATOR"
        )


def _not_finite(samples: Tensor) -> Tensor:
    """How many samples are not finite, on their device.

    On the CPU the extremes, which take a twentieth of the time, tell first that all are; elsewhere the answer to that
    would have to be waited for.
    """
    import torch

    if samples.device.type == "cpu" and torch.isfinite(torch.stack(torch.aminmax(samples))).all():
        return torch.tensor(0)
    return torch.count_nonzero(samples - samples)  # of what is finite 0, and otherwise NaN, which counts


def _to_host(tensor: Tensor) -> Tensor:
    """The tensor in host memory; from CUDA it is pinned memory, and the copy is not waited for."""
    return tensor.to("cpu", non_blocking=tensor.is_cuda)
