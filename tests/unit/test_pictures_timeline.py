"""The timeline of a song: its instruments, their order, and their levels."""

from typing import Any

import pytest

from bandscope_dagster.pictures.timeline import LEVELS, MOST_INSTRUMENTS, Timeline, timeline


def window(
    instrument: str, start_s: float, end_s: float, score: float | None = None, bound: float = 0.2
) -> dict[str, Any]:
    return {"instrument": instrument, "score": score, "bound": bound, "start_s": start_s, "end_s": end_s}


def timeline_of(*rows: dict[str, Any]) -> Timeline:
    """The timeline of ten seconds in ten parts."""
    return timeline(rows, seconds=10.0, parts=10)


def levels_of(*rows: dict[str, Any]) -> list[int]:
    return timeline_of(*rows).levels["piano"].tolist()


def test_an_instrument_without_a_score_is_at_the_highest_level_where_it_is_named() -> None:
    found = timeline_of(window("piano", 2, 4))
    assert found.levels["piano"].tolist() == [0, 0, LEVELS, LEVELS, 0, 0, 0, 0, 0, 0]
    assert found.scores is None


def test_the_levels_of_all_instruments_begin_at_the_lowest_bound() -> None:
    found = timeline_of(window("piano", 0, 5, 0.6, bound=0.5), window("flute", 0, 5, 1.0, bound=0.1))
    assert found.scores == (0.1, 1.0)
    assert (found.levels["piano"][0], found.levels["flute"][0]) == (3, LEVELS)


def test_the_level_grows_from_the_bound_to_the_highest_score_of_the_song() -> None:
    scores = (0.2, 0.35, 0.45, 0.55, 0.69, 0.7)
    rows = [window("piano", second, second + 1, score) for second, score in enumerate(scores)]
    assert levels_of(*rows)[:6] == [1, 2, 3, 4, 5, 5]
    assert timeline_of(*rows).scores == (0.2, 0.7)


def test_where_all_scores_are_the_same_they_are_the_highest() -> None:
    assert levels_of(window("piano", 0, 1, 0.2), window("piano", 5, 6, 0.2)) == [5, 0, 0, 0, 0, 5, 0, 0, 0, 0]


def test_where_windows_overlap_the_higher_score_counts() -> None:
    rows = [window("piano", 0, 6, 0.2), window("piano", 3, 9, 1.0), window("piano", 5, 7, 0.4)]
    assert levels_of(*rows) == levels_of(*reversed(rows)) == [1, 1, 1, 5, 5, 5, 5, 5, 5, 0]


def test_a_window_that_is_shorter_than_a_part_is_seen() -> None:
    assert levels_of(window("piano", 4.1, 4.2)) == [0, 0, 0, 0, LEVELS, 0, 0, 0, 0, 0]


def test_a_window_that_reaches_past_the_end_is_cut_there() -> None:
    assert levels_of(window("piano", 8, 13), window("piano", 12, 15)) == [0] * 8 + [LEVELS] * 2


def test_the_most_present_come_first_and_no_more_than_there_is_room_for() -> None:
    rows = [window(f"instrument {n:02d}", 0, 1 + n / 10) for n in range(30)]
    found = timeline_of(*rows)
    assert list(found.levels) == [f"instrument {n:02d}" for n in range(29, 29 - MOST_INSTRUMENTS, -1)]
    assert found.instruments == 30


def test_a_second_of_presence_is_worth_its_score() -> None:
    found = timeline_of(window("flute", 0, 5, 0.3), window("piano", 0, 2, 0.9))
    assert list(found.levels) == ["piano", "flute"]


def test_a_song_without_a_present_instrument_has_an_empty_timeline() -> None:
    found = timeline_of()
    assert found.levels == {}
    assert found.instruments == 0


@pytest.mark.parametrize("bound", [0.0, 1.0])
def test_the_bound_may_be_anything_from_nothing_to_certainty(bound: float) -> None:
    found = timeline_of(window("piano", 0, 10, bound, bound))
    assert found.levels["piano"].tolist() == [LEVELS] * 10
