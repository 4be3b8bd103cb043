"""From one source's audio to its tag rows: resample, cut into windows, tag in shared batches, map to the vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.resample import StreamResampler
from bandscope_dagster.errors import BandscopeError
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.tagging.protocol import Tag, Tagger
from bandscope_dagster.tagging.vocabulary import Vocabulary, load_vocabulary
from bandscope_dagster.tagging.windows import Window, Windows

MIXTURE: Final = "mixture"  # the source that is no stem


class BadScores(BandscopeError):
    """The tagger gave a score that is not a number in [0, 1]; nothing of it can be stored."""


@dataclass(frozen=True, slots=True)
class TaggedWindow:
    """What was heard where; the window's audio is not kept."""

    start_frame: int
    frames: int
    tags: list[Tag]


@dataclass(slots=True)
class SourceTags:
    """The tags of one source (the mixture or a stem) of one song, as they come in."""

    source: str
    tagger: Tagger
    sample_rate: int  # Hz, of the audio that is pushed
    tagged: list[TaggedWindow] = field(default_factory=list["TaggedWindow"])
    error: Exception | None = None
    _resampler: StreamResampler = field(init=False)
    _windows: Windows = field(init=False)

    def __post_init__(self) -> None:
        self._resampler = StreamResampler(self.sample_rate, self.tagger.plan.sample_rate, channels=1)
        self._windows = Windows(self.tagger.plan)

    def push(self, block: NDArray[np.float32]) -> list[Window]:
        """Add a block ``(channels, frames)``; returns the windows that it completes and that are not silent."""
        mono = block.mean(axis=0, keepdims=True)
        return [w for w in self._windows.push(self._resampler.push(mono)[0]) if not w.silent]

    def finish(self) -> list[Window]:
        """The last windows, once all audio was pushed."""
        last = self._windows.push(self._resampler.finish()[0]) + self._windows.finish()
        return [w for w in last if not w.silent]

    def rows(self, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
        """One row per instrument and window, without the columns that are the same for the whole file.

        Labels that mean the same instrument are one row, that of the highest score.
        """
        rate = self.tagger.plan.sample_rate
        match_once = cache(vocabulary.match)  # a tagger says the same few labels over and over
        for window in sorted(self.tagged, key=lambda window: window.start_frame):
            best: dict[str, dict[str, Any]] = {}
            for tag in window.tags:
                match = match_once(tag.label)
                row = best.get(match.instrument)
                if row is None or (tag.score or 0.0) > (row["score"] or 0.0):
                    best[match.instrument] = {
                        "source": self.source,
                        "instrument": match.instrument,
                        "family": match.family,
                        "label": tag.label,
                        "score": tag.score,
                        "start_s": window.start_frame / rate,
                        "end_s": (window.start_frame + window.frames) / rate,
                        "layer": tag.layer,
                    }
            yield from (best[instrument] for instrument in sorted(best))


class WindowQueue:
    """Fills the tagger's batches with windows of several sources and songs."""

    def __init__(self, tagger: Tagger) -> None:
        self.tagger = tagger
        self._waiting: list[tuple[SourceTags, Window]] = []

    def add(self, source: SourceTags, windows: list[Window]) -> None:
        """Queue windows of ``source``; the tagger runs whenever a batch is full."""
        self._waiting.extend((source, window) for window in windows)
        while len(self._waiting) >= self.tagger.batch:
            self._run(self.tagger.batch)

    def flush(self) -> None:
        """Tag everything that waits."""
        while self._waiting:
            self._run(self.tagger.batch)

    def _run(self, count: int) -> None:
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        batch = [(source, window) for source, window in batch if source.error is None]
        try:
            self._tag(batch)
        except Exception:
            # One window may have sunk the batch: alone, only its own song fails.
            for pair in batch:
                try:
                    self._tag([pair])
                except Exception as error:
                    pair[0].error = error

    def _tag(self, batch: list[tuple[SourceTags, Window]]) -> None:
        if batch:
            # Always of one size, filled up with silence: on every device, how a sum is rounded depends on the
            # batch's size, and a window's scores must not depend on what else is tagged with it.
            windows = np.zeros((self.tagger.batch, *batch[0][1].samples.shape), np.float32)
            for index, (_, window) in enumerate(batch):
                windows[index] = window.samples
            name = self.tagger.identity.name
            answers = self.tagger.tag(windows)
            if len(answers) != len(windows):
                raise ValueError(f"{name} gave the tags of {len(answers)} windows instead of {len(windows)}")
            heard = list(zip(batch, answers[: len(batch)], strict=True))
            for (source, _), tags in heard:  # all before any is kept: a batch that fails is tagged again
                _check_scores(tags, name, source.source)
            for (source, window), tags in heard:
                source.tagged.append(TaggedWindow(window.start_frame, window.frames, tags))


def _check_scores(tags: list[Tag], tagger: str, source: str) -> None:
    for tag in tags:
        if tag.score is not None and not 0.0 <= tag.score <= 1.0:  # also where it is no number
            raise BadScores(
                f"{tagger} gave {tag.label!r} in the {source} the score {tag.score}; run it again with"
                " BANDSCOPE_DEVICE=cpu or another BANDSCOPE_TAGGER"
            )


def with_vocabulary(tagger: ModelIdentity) -> ModelIdentity:
    """The tagger's identity with the vocabulary that its labels are mapped by: both decide on the rows."""
    return replace(tagger, params=tagger.params | {"vocabulary_sha256": load_vocabulary().sha256})
