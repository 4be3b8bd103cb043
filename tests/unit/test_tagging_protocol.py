"""tagging/protocol: a score for every label, read as tags."""

import sys

import numpy as np
import pytest

from bandscope_dagster.tagging.protocol import Heard, ScoredLabels, Tag

LABELS = ("piano", "flute", "harp")


def scored(*scores: float) -> ScoredLabels:
    return ScoredLabels(LABELS, np.array(scores, np.float32))


def test_they_are_the_tags_of_the_labels_in_their_order() -> None:
    tags = [Tag("piano", 0.5), Tag("flute", 0.25), Tag("harp", 1.0)]
    found = scored(0.5, 0.25, 1.0)
    assert list(found) == tags and len(found) == 3
    assert found[-1] == tags[-1] and found[:2] == tags[:2] and found[::-1] == tags[::-1]
    assert type(found[0].score) is float, "as rows of a table hold it"
    with pytest.raises(IndexError):
        found[3]


def test_answers_of_equal_scores_are_equal_however_they_are_held() -> None:
    assert Heard(scored(0.5, 0.25, 1.0)) == Heard(scored(0.5, 0.25, 1.0))
    assert Heard(scored(0.5, 0.25, 1.0)) == Heard([Tag("piano", 0.5), Tag("flute", 0.25), Tag("harp", 1.0)])
    assert Heard(scored(0.5, 0.25, 1.0)) != Heard(scored(0.5, 0.25, 0.75))
    assert scored(0.5, 0.25, 1.0) != "other"


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), ()])
def test_scores_that_are_not_one_for_each_label_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="3 labels cannot have scores of shape"):
        ScoredLabels(LABELS, np.zeros(shape, np.float32))


def test_they_take_a_fraction_of_what_tags_take() -> None:
    labels = [f"label {number}" for number in range(95)]
    held = ScoredLabels(labels, np.random.default_rng(0).random(95, np.float32))
    as_tags = sum(sys.getsizeof(tag) + sys.getsizeof(tag.score) for tag in held)
    assert sys.getsizeof(held) + sys.getsizeof(held._scores) < as_tags / 8
