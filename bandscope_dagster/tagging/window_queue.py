"""Windows of several sources and songs in shared calls of one tagger, within the memory that there is."""

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
    """The tagger gave a score that is not a number in [0, 1]; nothing of it can be stored."""


class WindowQueue:
    """Fills the tagger's batches with windows of several sources and songs.

    What is heard in a window does not depend on its company. Where the tagger gives scores (``fixed_batch``) each of
    its calls is of one size, filled up with silence, because on every device the rounding of sums depends on it; a
    language model, which would have to answer for the silence as well, gets only windows.

    Where memory runs out the batch is halved, for all calls to come. A window that the tagger cannot be told at all,
    alone, is the error of its own source; the others of its batch are tagged without it.
    """

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self.batch = tagger.batch  # less than the tagger's own where memory has run out
        self._waiting: deque[_Entry] = deque()

    def add(self, source: SourceTags, windows: list[Window]) -> None:
        """Queue windows of ``source``; the tagger runs whenever a batch is full."""
        source.waiting += len(windows)
        self._waiting.extend((source, window) for window in windows)
        while len(self._waiting) >= self.batch:
            self._run()

    def flush(self) -> None:
        """Tag everything that waits, without waiting for a full batch."""
        while self._waiting:
            self._run()

    def _run(self) -> None:
        entries = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
        self._attempt([entry for entry in entries if entry[0].error is None])
        for source, _ in entries:
            source.waiting -= 1

    def _attempt(self, entries: list[_Entry]) -> None:
        """Tag windows that are few enough for one call."""
        if not entries:
            return
        try:
            self._tag(entries)
            return
        except Exception as error:
            traceback.clear_frames(
                error.__traceback__
            )  # keeps the lines, frees the tensors of the failed call
            failure = error
        name = self.tagger.identity.name
        if is_out_of_memory(failure) and self.batch > 1:
            self._shrink()
            logger.warning(
                "%s ran out of memory on %s and goes on with %d windows at a time (%s: %s)",
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
            torch.cuda.empty_cache()  # what the larger call left in torch's cache is in pieces of the wrong size

    def _tag(self, entries: list[_Entry]) -> None:
        size = self.batch if self.tagger.fixed_batch else len(entries)
        windows = np.zeros((size, *entries[0][1].samples.shape), np.float32)
        for index, (_, window) in enumerate(entries):
            windows[index] = window.samples
        name = self.tagger.identity.name
        answers = self.tagger.tag(windows)
        if len(answers) != len(windows):
            raise ValueError(f"{name} gave the tags of {len(answers)} windows instead of {len(windows)}")
        heard = list(zip(entries, answers[: len(entries)], strict=True))
        for (source, _), answer in heard:  # all before any is kept: a batch that fails is tagged again
            _check_scores(answer.tags, name, source.source)
        for (source, window), answer in heard:
            source.tagged.append(TaggedWindow(window.start_frame, window.frames, answer))


def _check_scores(tags: Iterable[Tag], tagger: str, source: str) -> None:
    for tag in tags:
        if tag.score is not None and not 0.0 <= tag.score <= 1.0:  # also where it is no number
            raise BadScores(
                f"{tagger} gave {tag.label!r} in the {source} the score {tag.score}; run it again with"
                " BANDSCOPE_DEVICE=cpu or another BANDSCOPE_TAGGER"
            )
