"""From the audio of one source to its tag rows: resample, cut into windows, map labels to the vocabulary."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.resample import StreamResampler
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.tagging.protocol import AnyTagger, Heard
from bandscope_dagster.tagging.vocabulary import Vocabulary, load_vocabulary
from bandscope_dagster.tagging.windows import Window, Windows


@dataclass(frozen=True, slots=True)
class TaggedWindow:
    """The tagger's result for one window, without the audio."""

    start_frame: int  # at the tagger's sample rate, like ``frames``
    frames: int
    heard: Heard
    level_dbfs: float  # of the window's audio, mono


@dataclass(slots=True)
class SourceTags:
    """The tags of one source (the mixture or a stem) of one song, collected window by window."""

    source: str
    tagger: AnyTagger
    sample_rate: int  # Hz, of the audio that is pushed
    tagged: list[TaggedWindow] = field(default_factory=list["TaggedWindow"])
    waiting: int = 0  # windows in the queue to the tagger
    error: Exception | None = None  # the first; once set, no further window is tagged
    _resampler: StreamResampler = field(init=False)
    _windows: Windows = field(init=False)

    def __post_init__(self) -> None:
        self._resampler = StreamResampler(self.sample_rate, self.tagger.plan.sample_rate, channels=1)
        self._windows = Windows(self.tagger.plan)

    def push(self, block: NDArray[np.float32]) -> list[Window]:
        """Add a block ``(channels, frames)``; return the windows that it completes, without the silent ones."""
        mono = block.mean(axis=0, keepdims=True)
        return [w for w in self._windows.push(self._resampler.push(mono)[0]) if not w.silent]

    def finish(self) -> list[Window]:
        """The last windows, without the silent ones; call it once, after all audio was pushed."""
        last = self._windows.push(self._resampler.finish()[0]) + self._windows.finish()
        return [w for w in last if not w.silent]

    def rows(self, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
        """One row per instrument and window, without the columns that are equal in the whole file.

        If several labels mean the same instrument, the row has the one with the highest score. If a language model
        named no instrument in a window, or its answer is unreadable, the window has one row without an instrument.
        """
        rate = self.tagger.plan.sample_rate
        match_once = cache(vocabulary.match)  # a tagger repeats the same few labels
        for window in sorted(self.tagged, key=lambda window: window.start_frame):
            heard = window.heard
            common = {
                "source": self.source,
                "start_s": window.start_frame / rate,
                "end_s": (window.start_frame + window.frames) / rate,
                "answer": heard.answer,
                "note": heard.note,
                "error": heard.error,
                "level_dbfs": window.level_dbfs,
            }
            best: dict[str, dict[str, Any]] = {}
            for tag in heard.tags:
                match = match_once(tag.label)
                row = best.get(match.instrument)
                if row is None or (tag.score or 0.0) > (row["score"] or 0.0):
                    best[match.instrument] = common | {
                        "instrument": match.instrument,
                        "family": match.family,
                        "mapped": match.family is not None,
                        "label": tag.label,
                        "score": tag.score,
                        "layer": tag.layer,
                    }
            yield from (best[instrument] for instrument in sorted(best))
            if not best and (heard.answer is not None or heard.error is not None):
                yield common | dict.fromkeys(["instrument", "family", "mapped", "label", "score", "layer"])


def with_vocabulary(tagger: ModelIdentity) -> ModelIdentity:
    """The tagger's identity plus the digest of the vocabulary: the rows depend on both."""
    return replace(tagger, params=tagger.params | {"vocabulary_sha256": load_vocabulary().sha256})
