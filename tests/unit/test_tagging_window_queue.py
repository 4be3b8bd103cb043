"""tagging/window_queue: windows in a call do not depend on each other, and an error fails only its own source."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from level_tagger import FAINT, LOUD, RATE, Audio, ByLevel, always, level, tagged

from bandscope_dagster.tagging.protocol import Heard, Tag
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.window_queue import BadScores, WindowQueue

PIANO = Tag("piano", 0.5)


def test_the_model_always_sees_batches_of_its_own_size() -> None:
    tagger = ByLevel(always(PIANO), batch=4)
    assert len(tagged(tagger, level(*[LOUD] * 9)).tagged) == 9
    assert tagger.calls == [4, 4, 4]


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.5])
def test_a_score_that_is_not_a_number_between_0_and_1_is_an_error_that_names_it(score: float) -> None:
    tags = tagged(ByLevel(always(Tag("piano", score))), level(LOUD))
    assert isinstance(tags.error, BadScores)
    assert f"by-level returned the score {score} for 'piano' in the mixture" in str(tags.error)
    assert "BANDSCOPE_TAGGER" in str(tags.error)


def nan_where_loud(loudest: float) -> Heard:
    return Heard([Tag("piano", math.nan if loudest == np.float32(LOUD) else 0.5)])


def raises_where_loud(loudest: float) -> Heard:
    if loudest == np.float32(LOUD):
        raise ArithmeticError("too loud")
    return Heard([PIANO])


@pytest.mark.parametrize("heard_at", [nan_where_loud, raises_where_loud])
def test_a_bad_window_fails_its_own_source_and_the_batchs_others_are_tagged_once(
    heard_at: Callable[[float], Heard],
) -> None:
    tagger = ByLevel(heard_at, batch=4)
    queue = WindowQueue(tagger)
    good, bad = SourceTags("vocals", tagger, RATE), SourceTags("drums", tagger, RATE)
    queue.add(good, good.push(level(FAINT, FAINT)) + good.finish())
    queue.add(bad, bad.push(level(FAINT, LOUD)) + bad.finish())
    queue.flush()

    assert good.error is None
    assert sorted(window.start_frame for window in good.tagged) == [0, 3 * RATE]
    assert bad.error is not None


def test_a_source_that_has_failed_costs_no_more_model_time() -> None:
    tagger = ByLevel(raises_where_loud, batch=1)
    queue, tags = WindowQueue(tagger), SourceTags("mixture", tagger, RATE)
    queue.add(tags, tags.push(level(LOUD, FAINT)))
    before = len(tagger.calls)
    queue.add(tags, tags.push(level(FAINT, FAINT)) + tags.finish())
    assert isinstance(tags.error, ArithmeticError)
    assert len(tagger.calls) == before


def test_a_tagger_that_omits_a_window_is_an_error_and_not_a_song_without_instruments() -> None:
    class Forgets(ByLevel):
        def tag(self, windows: Audio) -> list[Heard]:
            return super().tag(windows)[1:]

    tags = tagged(Forgets(always(PIANO)), level(LOUD, LOUD))
    assert tags.error is not None
    assert "by-level returned tags of 3 windows instead of 4" in str(tags.error)


def test_a_language_model_gets_no_silence_to_fill_its_batch() -> None:
    tagger = ByLevel(always(PIANO), batch=4, fixed_batch=False)
    tagged(tagger, level(*[LOUD] * 5))
    assert tagger.calls == [4, 1]


def test_windows_that_wait_for_a_batch_are_counted_until_they_are_tagged() -> None:
    tagger = ByLevel(always(PIANO), batch=3)
    queue, tags = WindowQueue(tagger), SourceTags("mixture", tagger, RATE)
    queue.add(tags, tags.push(level(*[LOUD] * 4)) + tags.finish())
    assert (tags.waiting, len(tags.tagged)) == (1, 3)
    queue.flush()
    assert (tags.waiting, len(tags.tagged)) == (0, 4)


@dataclass
class WithLittleMemory(ByLevel):
    """A tagger that runs out of memory with more than a given number of windows in a call."""

    most: int = 1

    def tag(self, windows: Audio) -> list[Heard]:
        heard = super().tag(windows)
        if len(windows) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return heard


@pytest.mark.parametrize("fixed", [True, False])
def test_if_memory_runs_out_the_batch_is_halved_for_all_further_calls(fixed: bool) -> None:
    tagger = WithLittleMemory(always(PIANO), batch=8, fixed_batch=fixed, most=2)
    queue, tags = WindowQueue(tagger), SourceTags("mixture", tagger, RATE)
    queue.add(tags, tags.push(level(*[LOUD] * 16)) + tags.finish())
    queue.flush()
    assert tags.error is None
    assert sorted(window.start_frame for window in tags.tagged) == [3 * RATE * k for k in range(16)]
    assert tagger.calls == [8, 4, *[2] * 8]
    assert queue.batch == 2


def test_a_window_that_never_fits_into_memory_fails_its_own_source() -> None:
    def too_much(loudest: float) -> Heard:
        if loudest == np.float32(LOUD):
            raise MemoryError
        return Heard([PIANO])

    tagger = ByLevel(too_much, batch=4)
    queue = WindowQueue(tagger)
    good, bad = SourceTags("vocals", tagger, RATE), SourceTags("drums", tagger, RATE)
    queue.add(good, good.push(level(FAINT, FAINT)) + good.finish())
    queue.add(bad, bad.push(level(FAINT, LOUD)) + bad.finish())
    queue.flush()
    assert (good.error, len(good.tagged)) == (None, 2)
    assert isinstance(bad.error, MemoryError)
    assert (good.waiting, bad.waiting) == (0, 0)
