"""tagging/source_tags: the rows made from the tags of a source, and their order."""

import numpy as np
import pytest
from level_tagger import FAINT, LOUD, ByLevel, always, level, tagged

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.tagging.protocol import Heard, Tag
from bandscope_dagster.tagging.source_tags import with_vocabulary
from bandscope_dagster.tagging.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary()


def test_a_row_says_where_what_was_heard_and_how_surely() -> None:
    tags = tagged(ByLevel(always(Tag("Grand Pianos", 0.7, "foreground"))), level(LOUD, LOUD), "vocals")
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
        "mapped": True,
        "answer": None,
        "note": None,
        "error": None,
        "level_dbfs": pytest.approx(20 * np.log10(LOUD), abs=0.1),
    }
    assert [(row["start_s"], row["end_s"]) for row in rows] == [(0.0, 3.0), (3.0, 6.0)]


def test_labels_of_one_instrument_are_one_row_of_the_highest_score() -> None:
    voices = [Tag("vocal", 0.3), Tag("singing", 0.6), Tag("vocals", 0.5)]
    assert len({VOCABULARY.match(tag.label).instrument for tag in voices}) == 1
    (row,) = tagged(ByLevel(always(*voices)), level(LOUD)).rows(VOCABULARY)
    assert (row["label"], row["score"]) == ("singing", 0.6)


def test_a_label_without_a_score_is_kept_and_gives_way_to_one_with_a_score() -> None:
    (alone,) = tagged(ByLevel(always(Tag("piano", None))), level(LOUD)).rows(VOCABULARY)
    assert alone["score"] is None
    both = [Tag("piano", None), Tag("pianos", 0.2)]
    (row,) = tagged(ByLevel(always(*both)), level(LOUD)).rows(VOCABULARY)
    assert row["score"] == 0.2


def test_a_label_outside_the_vocabulary_is_kept_unmapped() -> None:
    (row,) = tagged(ByLevel(always(Tag("Zorblophone", 0.4))), level(LOUD)).rows(VOCABULARY)
    assert row["label"] == "Zorblophone"
    assert (row["family"], row["mapped"]) == (None, False)


def test_rows_come_by_time_and_then_by_instrument() -> None:
    tagger = ByLevel(always(Tag("violin", 0.1), Tag("guitar", 0.9), Tag("piano", 0.5)), batch=2)
    rows = list(tagged(tagger, level(LOUD, FAINT, LOUD)).rows(VOCABULARY))
    assert [(row["start_s"], row["instrument"]) for row in rows] == [
        (start, instrument) for start in (0.0, 3.0, 6.0) for instrument in ("guitar", "piano", "violin")
    ]


def test_silent_windows_give_no_rows_and_cost_no_model_time() -> None:
    tagger = ByLevel(always(Tag("piano", 0.5)), batch=1)
    rows = list(tagged(tagger, level(LOUD, 0.0, 1e-5, FAINT)).rows(VOCABULARY))
    assert [row["start_s"] for row in rows] == [0.0, 9.0]
    assert len(tagger.calls) == 2


def test_a_silent_song_gives_no_rows() -> None:
    tagger = ByLevel(always(Tag("piano", 0.5)))
    assert list(tagged(tagger, level(0.0, 0.0)).rows(VOCABULARY)) == []
    assert tagger.calls == []


def test_a_window_of_which_words_name_nothing_is_a_row_without_an_instrument() -> None:
    def answer(loudest: float) -> Heard:
        if loudest == np.float32(LOUD):
            return Heard([Tag("piano", None)], answer='["piano"]')
        return Heard([], answer="Music.", error="unparseable: no list")

    rows = list(tagged(ByLevel(answer), level(LOUD, FAINT)).rows(VOCABULARY))
    assert [(row["start_s"], row["instrument"], row["error"]) for row in rows] == [
        (0.0, "piano", None),
        (3.0, None, "unparseable: no list"),
    ]
    assert [row["answer"] for row in rows] == ['["piano"]', "Music."]
    assert rows[1]["mapped"] is None
    assert set(rows[0]) == set(rows[1])


def test_an_empty_answer_is_kept_and_is_no_error() -> None:
    (row,) = tagged(ByLevel(lambda _: Heard([], "[]", "named nothing")), level(LOUD)).rows(VOCABULARY)
    assert (row["instrument"], row["answer"], row["note"], row["error"]) == (
        None,
        "[]",
        "named nothing",
        None,
    )


def test_both_channels_are_heard() -> None:
    heard: list[float] = []

    def listen(loudest: float) -> Heard:
        heard.append(loudest)
        return Heard([])

    right_only = level(LOUD) * np.float32([[0], [1]])
    tagged(ByLevel(listen, batch=1), right_only)
    assert heard == [np.float32(LOUD / 2)]


def test_the_taggers_identity_holds_the_vocabulary_that_maps_its_labels() -> None:
    tagger = ModelIdentity("tagger", "ab" * 32, {"hop": 1})
    identity = with_vocabulary(tagger)
    assert identity.params == {"hop": 1, "vocabulary_sha256": VOCABULARY.sha256}
    assert (identity.name, identity.sha256) == (tagger.name, tagger.sha256)
