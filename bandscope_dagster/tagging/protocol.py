"""The interface of taggers: models that name the instruments in windows of audio of one length."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity

Layer = Literal["foreground", "middle_ground", "background"]

ON_A_SERVER = "server"  # the device of a tagger that computes elsewhere


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The windows that audio is cut into, in frames at ``sample_rate``.

    Window ``k`` covers ``[k * hop, k * hop + length)``. The model also gets the ``lead`` frames before the window; at
    the start of a song, they are a reflection of the audio after it.
    """

    sample_rate: int  # Hz, mono
    length: int
    hop: int  # at most the length
    lead: int = 0

    def check(self, windows: NDArray[np.float32], tagger: str) -> None:
        """Raise ValueError unless ``windows`` are ``(batch, lead + length)`` float32."""
        expected = self.lead + self.length
        if windows.ndim != 2 or windows.shape[1] != expected or windows.dtype != np.float32:
            raise ValueError(
                f"{tagger} takes float32 windows of shape (batch, {expected}), mono at {self.sample_rate} Hz, "
                f"not {windows.dtype} of shape {windows.shape}"
            )


@dataclass(frozen=True, slots=True)
class Tag:
    """One label that a model assigned to a window."""

    label: str  # in the model's own words
    score: float | None  # in [0, 1]; None if the model has no scores
    layer: Layer | None = None


class ScoredLabels(Sequence[Tag]):
    """A score for each of a model's labels; a tag is created when it is read.

    As objects, the tags of two hours would take 20 MB with a model that scores every label.
    """

    __slots__ = ("_labels", "_scores")

    def __init__(self, labels: Sequence[str], scores: NDArray[np.float32]) -> None:
        """``scores`` is one row, ``(labels,)``; not a view, which would keep its whole array in memory."""
        if scores.shape != (len(labels),):
            raise ValueError(f"{len(labels)} labels cannot have scores of shape {scores.shape}")
        self._labels = labels
        self._scores = scores

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> Tag: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tag]: ...
    def __getitem__(self, index: int | slice) -> Tag | list[Tag]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return Tag(self._labels[index], float(self._scores[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)  # pyright: ignore[reportUnknownArgumentType]


@dataclass(frozen=True, slots=True)
class Heard:
    """A tagger's result for one window. A field that does not apply to the tagger is always None."""

    tags: Sequence[Tag]
    answer: str | None = None  # the complete answer of a language model
    note: str | None = None  # corrections to the answer, and dropped parts
    error: str | None = None  # "<reason>: <message>" if the answer is unreadable; there are no tags then


class _Described(Protocol):
    """The members that all taggers have."""

    identity: ModelIdentity
    plan: WindowPlan
    device: str  # a device name of torch, or ``ON_A_SERVER``
    batch: int  # windows, the best number for one call, or at once


class Tagger(_Described, Protocol):
    """Names the instruments in windows of audio."""

    fixed_batch: bool  # True: calls are filled up to ``batch`` windows with silence; see WindowQueue

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        """``(batch, lead + length)`` mono float32 in [-1, 1] → the result for each window; any batch size.

        The result for a window must not depend on the other windows. Labels name instruments or voices only, no moods
        or genres.
        """
        ...


@runtime_checkable
class RemoteTagger(_Described, Protocol):
    """A tagger that computes elsewhere. Windows are asked one by one, ``batch`` at once, and answered in any order."""

    def ask(self, window: NDArray[np.float32]) -> Future[Heard]:
        """``(lead + length,)`` mono float32 in [-1, 1] → its result, later; does not wait.

        Of more than ``batch`` windows, the last ones wait for a place. A future may be cancelled at any time.

        Raises (the future):
            ServerUnavailable: no answer, after retries.
            ServerRefused: the server refuses the request.
        """
        ...


AnyTagger = Tagger | RemoteTagger
