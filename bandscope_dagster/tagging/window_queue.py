"""Batch windows of several sources and songs into calls of one tagger, and shrink the batch if memory runs out.

The other memory fallback, for separators, is in ``separation/out_of_memory.py``.
"""

import logging
import traceback
from collections import deque
from collections.abc import Iterable

import numpy as np

from bandscope_dagster.device import is_out_of_memory
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.tagging.protocol import Tag, Tagger
from bandscope_dagster.tagging.source_tags import SourceTags, TaggedWindow
from bandscope_dagster.tagging.windows import Window

logger = logging.getLogger(__name__)

_Entry = tuple[SourceTags, Window]


class BadScores(BandscopeError):
    """The tagger returned a score that is not a number in [0, 1]; its tags cannot be stored."""


class WindowQueue:
    """Fills the tagger's batches with windows of several sources and songs.

    The tags of a window must not depend on the other windows of its batch. On every device, the batch size changes
    the rounding of sums. So a tagger with scores (``fixed_batch``) always gets batches of the same size; empty places
    are silence. A language model would also answer for silent windows, so its batches are not filled up.

    If memory runs out, the batch is halved for all further calls. If the tagger fails on a single window, the error
    belongs to the source of that window; the other windows of the batch are tagged.
    """

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self.batch = tagger.batch  # smaller than the tagger's after memory ran out
        self._waiting: deque[_Entry] = deque()

    def add(self, source: SourceTags, windows: list[Window]) -> None:
        """Queue windows of ``source``; run the tagger for each full batch."""
        source.waiting += len(windows)
        self._waiting.extend((source, window) for window in windows)
        while len(self._waiting) >= self.batch:
            self._run()

    def collect(self, *, wait: bool) -> bool:
        """With ``wait``, tag one batch, which need not be full; False if there was none to tag.

        Nothing is under way between two calls, so without ``wait`` there is nothing to collect.
        """
        if not wait or not self._waiting:
            return False
        self._run()
        return True

    def flush(self) -> None:
        """Tag all windows in the queue, without waiting for a full batch."""
        while self.collect(wait=True):
            pass

    def close(self) -> None:
        """Forget all windows in the queue."""
        self._waiting.clear()

    def _run(self) -> None:
        entries = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
        self._attempt([entry for entry in entries if entry[0].error is None])
        for source, _ in entries:
            source.waiting -= 1

    def _attempt(self, entries: list[_Entry]) -> None:
        """Tag windows that fit into one call; on an error, in smaller calls."""
        if not entries:
            return
        try:
            self._tag(entries)
            return
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # frees the tensors of the failed call
            failure = error
        name = self.tagger.identity.name
        if is_out_of_memory(failure) and self.batch > 1:
            self._shrink()
            logger.warning(
                "%s ran out of memory on %s; continuing with %d windows at a time (%s: %s)",
                *(name, self.tagger.device, self.batch, type(failure).__name__, failure),
            )
            while entries:
                few, entries = entries[: self.batch], entries[self.batch :]
                self._attempt(few)
        elif len(entries) > 1:
            logger.warning("%s failed on %d windows, trying one by one: %s", name, len(entries), failure)
            for entry in entries:
                self._attempt([entry])
        elif entries[0][0].error is None:
            entries[0][0].error = failure

    def _shrink(self) -> None:
        import torch

        self.batch //= 2
        if self.tagger.device.startswith("cuda"):
            torch.cuda.empty_cache()  # the cached blocks of the larger call have the wrong sizes

    def _tag(self, entries: list[_Entry]) -> None:
        size = self.batch if self.tagger.fixed_batch else len(entries)
        windows = np.zeros((size, *entries[0][1].samples.shape), np.float32)
        for index, (_, window) in enumerate(entries):
            windows[index] = window.samples
        name = self.tagger.identity.name
        answers = self.tagger.tag(windows)
        if len(answers) != len(windows):
            raise ValueError(f"{name} returned tags of {len(answers)} windows instead of {len(windows)}")
        heard = list(zip(entries, answers[: len(entries)], strict=True))
        # Check all scores first: if one is bad, the whole batch is tagged again.
        for (source, _), answer in heard:
            _check_scores(answer.tags, name, source.source)
        for (source, window), answer in heard:
            source.tagged.append(TaggedWindow(window.start_frame, window.frames, answer, window.level_dbfs))


def _check_scores(tags: Iterable[Tag], tagger: str, source: str) -> None:
    for tag in tags:
        if tag.score is not None and not 0.0 <= tag.score <= 1.0:  # NaN too
            raise BadScores(
                f"{tagger} returned the score {tag.score} for {tag.label!r} in the {source}; use"
                " BANDSCOPE_DEVICE=cpu or another BANDSCOPE_TAGGER"
            )
