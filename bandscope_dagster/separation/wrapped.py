"""Separators that are made of another one: a base, and one that returns some of its stems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.separation.chosen_stems import PARAMETER, require_stems
from bandscope_dagster.separation.protocol import Separator

if TYPE_CHECKING:
    from torch import Tensor


class WrappedSeparator:
    """A separator with the attributes of another one, which computes; a base for those that change something."""

    def __init__(self, separator: Separator) -> None:
        self._separator = separator
        self.identity: ModelIdentity = separator.identity
        self.stems: tuple[str, ...] = separator.stems
        self.plan = separator.plan
        self.shorter_plans = separator.shorter_plans
        self.batch = separator.batch
        self.device = separator.device
        self.normalised = separator.normalised


class ChosenStems(WrappedSeparator):
    """A separator that returns only some stems of another one, which may have left out the others itself."""

    def __init__(self, separator: Separator, stems: Sequence[str]) -> None:
        """``stems`` are in the order of the separator.

        Raises:
            SettingsError: the separator lacks one of the stems.
        """
        super().__init__(separator)
        own = separator.identity
        require_stems(stems, own.name, separator.stems)
        self._rows = [separator.stems.index(stem) for stem in stems]
        self._selects = len(stems) < len(separator.stems)
        self.identity = replace(own, params=own.params | {PARAMETER: list(stems)})
        self.stems = tuple(stems)

    def separate(self, segments: Tensor) -> Tensor:
        """``(batch, 2, length)`` → ``(batch, chosen stems, 2, length)``, both float32 on ``device``."""
        stems = self._separator.separate(segments)
        return stems[:, self._rows] if self._selects else stems
