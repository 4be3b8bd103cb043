"""Several separators whose stems are combined into one result, and their streaming: each model has its own segments."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.out_of_memory import CallLimits
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.streaming import (
    Results,
    Separated,
    SeparationFailed,
    StreamingSeparation,
)

Audio = NDArray[np.float32]
Row = tuple[int, int]  # a stem of a member: number of the member, number of the stem

FIRST: Final = 0  # the member whose mixture is passed on; all have the same


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Separators on one device, and the rows of their outputs whose mean is each stem."""

    identity: ModelIdentity
    stems: tuple[str, ...]  # of the result, in its order
    members: tuple[Separator, ...]
    computed: Mapping[str, tuple[Row, ...]]
    """Stem → the rows whose mean it is; no row for the rest of the mixture. Also stems that only the rest needs."""

    @property
    def device(self) -> str:
        """The device of all members, as torch names it."""
        return self.members[FIRST].device

    def combine(self, mixture: Audio, outputs: Sequence[Audio]) -> Audio:
        """The result, ``(stems, 2, frames)``, of aligned outputs: ``(stems, 2, frames)`` of each member."""
        found = {stem: _mean(outputs, rows) for stem, rows in self.computed.items() if rows}
        for stem in self.computed.keys() - found.keys():
            found[stem] = mixture - sum(found.values(), np.zeros_like(mixture))
        return np.stack([found[stem] for stem in self.stems])


def _mean(outputs: Sequence[Audio], rows: Sequence[Row]) -> Audio:
    total = sum((outputs[member][row] for member, row in rows[1:]), outputs[rows[0][0]][rows[0][1]])
    return np.divide(total, np.float32(len(rows)), dtype=np.float32)


AnySeparator = Separator | Ensemble


class Streaming(Protocol):
    """Separates several songs at once, block by block; see ``StreamingSeparation``."""

    def open(self, song: str, normalisation: Normalisation) -> None: ...
    def push(self, song: str, block: Audio) -> Results: ...
    def finish(self, song: str) -> Results: ...
    def drop(self, song: str) -> None: ...
    def flush(self) -> Results: ...


def streaming_of(separator: AnySeparator) -> Streaming:
    """The streaming separation with one separator, or with an ensemble."""
    if isinstance(separator, Ensemble):
        return StreamingEnsemble(separator)
    return StreamingSeparation(separator)


@dataclass(slots=True)
class _Waiting:
    """The pieces of one member that other members do not have yet."""

    pieces: deque[Audio] = field(default_factory=deque[Audio])  # each (…, frames)
    frames: int = 0
    shape: tuple[int, ...] = ()  # of a piece, without its frames

    def add(self, piece: Audio) -> None:
        self.pieces.append(piece)
        self.frames += piece.shape[-1]
        self.shape = piece.shape[:-1]

    def take(self, frames: int) -> Audio:
        """The next ``frames`` frames, of those that wait; a piece was added before."""
        taken: list[Audio] = [np.zeros((*self.shape, 0), np.float32)]
        self.frames -= frames
        while frames:
            piece = self.pieces.popleft()
            if piece.shape[-1] > frames:
                self.pieces.appendleft(piece[..., frames:])
                piece = piece[..., :frames]
            frames -= piece.shape[-1]
            taken.append(piece)
        return taken[1] if len(taken) == 2 else np.concatenate(taken, axis=-1)


@dataclass(slots=True)
class _Song:
    """A song between its members' results."""

    outputs: list[_Waiting]  # of each member
    mixture: _Waiting = field(default_factory=_Waiting)
    running: set[int] = field(default_factory=set[int])  # members that have not returned their last piece
    used: CallLimits | None = None
    ended: bool = False  # by the caller; it may still have segments that wait
    gone: bool = False  # failed


class StreamingEnsemble:
    """The interface of ``StreamingSeparation``, for an ensemble.

    Every block goes to every member. Each has segments, batches and fallbacks of its own, so one may be ahead of
    another: by the segments that wait for the other's batch, and by their overlap. Only so much of its output waits
    here, whatever the length of the song. A song that fails in one member is dropped in all.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble = ensemble
        self._members = [StreamingSeparation(member) for member in ensemble.members]
        self._songs: dict[str, _Song] = {}

    def open(self, song: str, normalisation: Normalisation) -> None:
        """Begin a song; ``normalisation`` is applied for the members that need it."""
        for member in self._members:
            member.open(song, normalisation)
        numbers = range(len(self._members))
        self._songs[song] = _Song([_Waiting() for _ in numbers], running=set(numbers))

    def push(self, song: str, block: Audio) -> Results:
        """Take the song's next frames, ``(2, n)`` float32 at 44.1 kHz; see ``StreamingSeparation.push``."""
        return self._pass_on(self._find(song), lambda member: member.push(song, block))

    def finish(self, song: str) -> Results:
        """End a song's input; see ``StreamingSeparation.finish``."""
        found = self._find(song)
        found.ended = True
        if found.gone:
            del self._songs[song]
        return self._pass_on(found, lambda member: member.finish(song))

    def drop(self, song: str) -> None:
        """Remove a song whose input failed elsewhere. It has no more results."""
        for member in self._members:
            member.drop(song)
        self._songs.pop(song, None)

    def flush(self) -> Results:
        """Run the models on all waiting segments, even if they do not fill a batch."""
        results: Results = []
        for number, member in enumerate(self._members):
            results += self._join(number, member.flush())
        return results

    def _find(self, song: str) -> _Song:
        if song not in self._songs:
            raise ValueError(f"song {song!r} is not open")
        return self._songs[song]

    def _pass_on(self, song: _Song, call: Callable[[StreamingSeparation], Results]) -> Results:
        """The results of a call of every member about ``song``, up to the one in which it fails."""
        results: Results = []
        for number, member in enumerate(self._members):
            if song.gone:
                break
            results += self._join(number, call(member))
        return results

    def _join(self, number: int, results: Iterable[Separated | SeparationFailed]) -> Results:
        """The results of all members that are complete with these of one member; they may be of any songs."""
        joined: Results = []
        for result in results:
            song = self._songs.get(result.song)
            if song is None or song.gone:
                continue
            if isinstance(result, SeparationFailed):
                joined.append(self._fail(song, result))
                continue
            song.outputs[number].add(result.stems)
            if number == FIRST:
                song.mixture.add(result.mixture)
            if result.last:
                song.running.discard(number)
            song.used = result.used if song.used is None else song.used.least(result.used)
            joined += self._complete(result.song, song)
        return joined

    def _fail(self, song: _Song, failure: SeparationFailed) -> SeparationFailed:
        for member in self._members:
            member.drop(failure.song)
        song.gone = True
        if song.ended:
            del self._songs[failure.song]
        song.outputs.clear()
        song.mixture = _Waiting()
        return failure

    def _complete(self, name: str, song: _Song) -> Results:
        """The next piece of the song, if every member has frames or the song is complete."""
        frames = min(waiting.frames for waiting in song.outputs)
        last = not song.running
        if not frames and not last:
            return []
        assert song.used is not None
        mixture = song.mixture.take(frames)
        stems = self._ensemble.combine(mixture, [waiting.take(frames) for waiting in song.outputs])
        if last:
            del self._songs[name]
        return [Separated(name, mixture, stems, last, song.used)]
