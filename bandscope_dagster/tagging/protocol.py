"""What a tagger is: a model that names what is heard in fixed-length windows of audio."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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
