"""From audio to tag rows: what becomes a row, in which order, and that no window depends on its company."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from audio_files import excerpt
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.tagging.musicnn import Musicnn
from bandscope_dagster.tagging.protocol import Tag, WindowPlan
from bandscope_dagster.tagging.source_tags import BadScores, SourceTags, WindowQueue, with_vocabulary
from bandscope_dagster.tagging.vocabulary import load_vocabulary

RATE = 1000  # Hz, of the audio and of the windows: nothing is resampled
PLAN = WindowPlan(sample_rate=RATE, length=3000, hop=3000)
VOCABULARY = load_vocabulary()
LOUD, FAINT = 0.5, 0.05  # levels of windows, which the taggers below tell apart

Audio = NDArray[np.float32]


@dataclass
class ByLevel:
    """Gives each window the tags that belong to its level."""

    tags_at: Callable[[float], list[Tag]]
    batch: int = 4
    plan: WindowPlan = PLAN
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("by-level", "0" * 64))
    calls: list[int] = field(default_factory=list)  # windows in each

    def tag(self, windows: Audio) -> list[list[Tag]]:
        self.calls.append(len(windows))
        return [self.tags_at(float(np.abs(window).max())) for window in windows]


def level(*windows: float) -> Audio:
    """Windows of 3 s of a constant level each, ``(2, frames)``."""
    return np.repeat(np.float32(windows), PLAN.length)[None].repeat(2, axis=0)


def tagged(tagger: ByLevel, audio: Audio, source: str = "mixture") -> SourceTags:
    queue, tags = WindowQueue(tagger), SourceTags(source, tagger, RATE)
    queue.add(tags, tags.push(audio))
    queue.add(tags, tags.finish())
    queue.flush()
    return tags


def piano(score: float | None) -> Callable[[float], list[Tag]]:
    return lambda _: [Tag("piano", score)]


def test_a_row_says_where_what_was_heard_and_how_surely() -> None:
    tags = tagged(ByLevel(lambda _: [Tag("Grand Pianos", 0.7, "foreground")]), level(LOUD, LOUD), "vocals")
    rows = list(tags.rows(VOCABULARY))
    match = VOCABULARY.match("Grand Pianos")
    assert rows[0] == {
        "source": "vocals",
        "instrument": match.instrument,
        "family": match.family,
        "label": "Grand Pianos",
        "score": 0.7,
        "start_s": 0.0,
        "end_s": 3.0,
        "layer": "foreground",
    }
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0.0, 3.0), (3.0, 6.0)]


def test_labels_of_one_instrument_are_one_row_of_the_highest_score() -> None:
    voices = [Tag("vocal", 0.3), Tag("singing", 0.6), Tag("vocals", 0.5)]
    assert len({VOCABULARY.match(tag.label).instrument for tag in voices}) == 1
    (row,) = tagged(ByLevel(lambda _: voices), level(LOUD)).rows(VOCABULARY)
    assert (row["label"], row["score"]) == ("singing", 0.6)


def test_a_label_without_a_score_is_kept_and_gives_way_to_one_with_a_score() -> None:
    (alone,) = tagged(ByLevel(piano(None)), level(LOUD)).rows(VOCABULARY)
    assert alone["score"] is None
    both = [Tag("piano", None), Tag("pianos", 0.2)]
    (row,) = tagged(ByLevel(lambda _: both), level(LOUD)).rows(VOCABULARY)
    assert row["score"] == 0.2


def test_a_label_outside_the_vocabulary_is_kept_unmapped() -> None:
    (row,) = tagged(ByLevel(lambda _: [Tag("Zorblophone", 0.4)]), level(LOUD)).rows(VOCABULARY)
    assert row["label"] == "Zorblophone"
    assert row["family"] is None


def test_rows_come_by_time_and_then_by_instrument() -> None:
    tagger = ByLevel(lambda _: [Tag("violin", 0.1), Tag("guitar", 0.9), Tag("piano", 0.5)], batch=2)
    rows = list(tagged(tagger, level(LOUD, FAINT, LOUD)).rows(VOCABULARY))
    assert [(row["start_s"], row["instrument"]) for row in rows] == [
        (start, instrument) for start in (0.0, 3.0, 6.0) for instrument in ("guitar", "piano", "violin")
    ]


def test_silent_windows_give_no_rows_and_cost_no_model_time() -> None:
    tagger = ByLevel(piano(0.5), batch=1)
    rows = list(tagged(tagger, level(LOUD, 0.0, 1e-5, FAINT)).rows(VOCABULARY))
    assert [row["start_s"] for row in rows] == [0.0, 9.0]
    assert len(tagger.calls) == 2


def test_a_silent_song_gives_no_rows() -> None:
    tagger = ByLevel(piano(0.5))
    assert list(tagged(tagger, level(0.0, 0.0)).rows(VOCABULARY)) == []
    assert tagger.calls == []


def test_the_model_always_sees_batches_of_its_own_size() -> None:
    tagger = ByLevel(piano(0.5), batch=4)
    assert len(list(tagged(tagger, level(*[LOUD] * 9)).rows(VOCABULARY))) == 9
    assert tagger.calls == [4, 4, 4]


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1, 1.5])
def test_a_score_that_is_no_number_between_0_and_1_is_an_error_that_names_it(score: float) -> None:
    tags = tagged(ByLevel(piano(score)), level(LOUD))
    assert isinstance(tags.error, BadScores)
    assert "by-level gave 'piano' in the mixture the score" in str(tags.error)
    assert "BANDSCOPE_TAGGER" in str(tags.error)


def nan_where_loud(loudest: float) -> list[Tag]:
    return [Tag("piano", math.nan if loudest == np.float32(LOUD) else 0.5)]


def raises_where_loud(loudest: float) -> list[Tag]:
    if loudest == np.float32(LOUD):
        raise ArithmeticError("too loud")
    return [Tag("piano", 0.5)]


@pytest.mark.parametrize("tags_at", [nan_where_loud, raises_where_loud])
def test_a_bad_window_fails_its_own_source_and_the_batchs_others_are_tagged_once(
    tags_at: Callable[[float], list[Tag]],
) -> None:
    tagger = ByLevel(tags_at, batch=4)
    queue = WindowQueue(tagger)
    good, bad = SourceTags("vocals", tagger, RATE), SourceTags("drums", tagger, RATE)
    queue.add(good, good.push(level(FAINT, FAINT)) + good.finish())
    queue.add(bad, bad.push(level(FAINT, LOUD)) + bad.finish())
    queue.flush()

    assert good.error is None
    assert [row["start_s"] for row in good.rows(VOCABULARY)] == [0.0, 3.0]
    assert bad.error is not None


def test_a_source_that_has_failed_costs_no_more_model_time() -> None:
    tagger = ByLevel(raises_where_loud, batch=1)
    queue, tags = WindowQueue(tagger), SourceTags("mixture", tagger, RATE)
    queue.add(tags, tags.push(level(LOUD, FAINT)))
    before = len(tagger.calls)
    queue.add(tags, tags.push(level(FAINT, FAINT)) + tags.finish())
    assert isinstance(tags.error, ArithmeticError)
    assert len(tagger.calls) == before


def test_a_tagger_that_forgets_a_window_is_an_error_and_not_a_song_without_instruments() -> None:
    class Forgets(ByLevel):
        def tag(self, windows: Audio) -> list[list[Tag]]:
            return super().tag(windows)[1:]

    tags = tagged(Forgets(piano(0.5)), level(LOUD, LOUD))
    assert tags.error is not None
    assert "by-level gave the tags of 3 windows instead of 4" in str(tags.error)


def test_both_channels_are_heard() -> None:
    heard: list[float] = []

    def listen(loudest: float) -> list[Tag]:
        heard.append(loudest)
        return []

    right_only = level(LOUD) * np.float32([[0], [1]])
    tagged(ByLevel(listen, batch=1), right_only)
    assert heard == [np.float32(LOUD / 2)]


@pytest.fixture(scope="module")
def musicnn() -> Musicnn:
    return Musicnn("cpu")


def test_a_windows_scores_are_the_same_to_the_last_bit_alone_and_in_any_company(musicnn: Musicnn) -> None:
    def song(seed: int) -> Audio:
        start = 20_000 * seed
        return np.roll(excerpt(), -start, axis=1)[:, : 44_100 * (2 + seed)] * np.float32(1 / (1 + seed))

    def scores(tags: SourceTags) -> list[tuple[int, list[Tag]]]:
        return [(window.start_frame, window.tags) for window in tags.tagged]

    def push(queue: WindowQueue, seed: int) -> SourceTags:
        tags = SourceTags("mixture", musicnn, 44_100)
        queue.add(tags, tags.push(song(seed)) + tags.finish())
        return tags

    alone: list[SourceTags] = []
    for seed in range(4):
        queue = WindowQueue(musicnn)
        alone.append(push(queue, seed))
        queue.flush()
    shared = WindowQueue(musicnn)
    company = [push(shared, seed) for seed in (2, 0, 3, 1)]
    shared.flush()

    assert sum(len(tags.tagged) for tags in alone) > musicnn.batch
    assert [scores(tags) for tags in alone] == [scores(company[i]) for i in (1, 3, 0, 2)]


def test_the_taggers_identity_holds_the_vocabulary_that_maps_its_labels(musicnn: Musicnn) -> None:
    identity = with_vocabulary(musicnn.identity)
    assert identity.params == musicnn.identity.params | {"vocabulary_sha256": VOCABULARY.sha256}
    assert (identity.name, identity.sha256) == (musicnn.identity.name, musicnn.identity.sha256)
