"""What a tagger is: a model that names what is heard in fixed-length windows of audio."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity

Layer = Literal["foreground", "middle_ground", "background"]


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How audio is cut into windows. All in frames at ``sample_rate``.

    Window ``k`` covers ``[k * hop, k * hop + length)``; the model is given ``lead`` frames more before it,
    which at the song's start are a reflection of the audio after it.
    """

    sample_rate: int  # Hz, mono
    length: int
    hop: int  # at most the length
    lead: int = 0


@dataclass(frozen=True, slots=True)
class Tag:
    """One thing that a model heard in one window."""

    label: str  # in the model's own words
    score: float | None  # in [0, 1]; None where the model gives none
    layer: Layer | None = None


class ScoredLabels(Sequence[Tag]):
    """A score for each of a model's labels, as tags that are made when they are asked for.

    As objects, the tags of two hours would be 20 MB; of models with a score for every label they are many.
    """

    __slots__ = ("_labels", "_scores")

    def __init__(self, labels: Sequence[str], scores: NDArray[np.float32]) -> None:
        """``scores`` is one row, ``(labels,)``, that is not part of a larger array, which would be kept as well."""
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
    """What a tagger says of one window. What is None in every answer of a tagger does not apply to it."""

    tags: Sequence[Tag]
    answer: str | None = None  # the model's whole answer, where it answers in words
    note: str | None = None  # what of the answer was mended or dropped
    error: str | None = None  # "<reason>: <message>" where the answer tells nothing; there are no tags then


class Tagger(Protocol):
    """Names the instruments in windows of audio."""

    identity: ModelIdentity
    plan: WindowPlan
    device: str  # as torch names it
    batch: int  # windows that one call takes at best
    fixed_batch: bool  # whether calls are filled up to ``batch`` windows with silence; see WindowQueue

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        """``(batch, lead + length)`` mono float32 in [-1, 1] → what is heard in each window; any batch.

        What is heard in a window does not depend on the others. Only labels that name instruments (or voices) are
        returned; moods and genres are not.
        """
        ...
