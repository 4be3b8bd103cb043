"""Models that several runs of one process share: their calls take turns, in the order in which they are asked for.

So a song that came later gets every second call while a batch is computed, and one call at a time has all cores, or the
accelerator's memory.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.separation.ensemble import AnySeparator, Ensemble
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.wrapped import WrappedSeparator
from bandscope_dagster.tagging.protocol import AnyTagger, Heard, RemoteTagger, Tagger

if TYPE_CHECKING:
    from torch import Tensor


class ModelThread:
    """The one thread of a process in which its models compute; calls wait in a queue."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")

    def separator(self, separator: AnySeparator) -> AnySeparator:
        """The same separator, which computes in this thread; the members of an ensemble take turns too."""
        if isinstance(separator, Ensemble):
            members = tuple(_SeparatorInTurns(member, self._thread) for member in separator.members)
            return replace(separator, members=members)
        return _SeparatorInTurns(separator, self._thread)

    def tagger(self, tagger: AnyTagger) -> AnyTagger:
        """The same tagger, which computes in this thread; a remote one takes no turns here."""
        return tagger if isinstance(tagger, RemoteTagger) else _TaggerInTurns(tagger, self._thread)


class _SeparatorInTurns(WrappedSeparator):
    def __init__(self, separator: Separator, thread: ThreadPoolExecutor) -> None:
        super().__init__(separator)
        self._thread = thread

    def separate(self, segments: Tensor) -> Tensor:
        return self._thread.submit(self._separator.separate, segments).result()


class _TaggerInTurns:
    def __init__(self, tagger: Tagger, thread: ThreadPoolExecutor) -> None:
        self._tagger, self._thread = tagger, thread
        self.identity = tagger.identity
        self.plan = tagger.plan
        self.device = tagger.device
        self.batch = tagger.batch
        self.fixed_batch = tagger.fixed_batch

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        return self._thread.submit(self._tagger.tag, windows).result()
