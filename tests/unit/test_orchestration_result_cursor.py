"""Cursors of results: their text, and events that become visible out of order."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.orchestration.result_cursor import (
    LOOK_BACK_S,
    Cursor,
    CursorError,
    Part,
    Position,
    Progress,
)

NUMBERS = st.integers(0, 10**12)
POSITIONS = st.builds(
    lambda settled, steps: Position(settled, tuple(sorted({settled + step for step in steps}))),
    NUMBERS,
    st.lists(st.integers(1, 10**6), max_size=8),
)


PARTS = st.none() | st.builds(Part, NUMBERS, NUMBERS)


@given(POSITIONS, POSITIONS, PARTS)
def test_the_text_of_a_cursor_is_read_as_the_same_cursor(
    finished: Position, failed: Position, part: Part | None
) -> None:
    cursor = Cursor(finished, failed, part)
    assert Cursor.parse(str(cursor)) == cursor


def test_the_text_is_short_where_events_are_in_order() -> None:
    assert str(Cursor(Position(5120), Position(5107))) == "5120.5107"
    assert str(Cursor(Position(5120, (5123, 5124)))) == "5120+3+1.0"
    assert str(Cursor(Position(5120), Position(5107), Part(5112, 3))) == "5120.5107.5112-3"


def test_a_run_that_was_read_in_part_is_the_last_failed_run_of_the_cursor() -> None:
    assert Cursor(failed=Position(5107), part=Part(5112, 3)).last_failed == 5112
    assert Cursor(failed=Position(5107)).last_failed == 5107


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "12.",
        "12.x",
        "-1.2",
        "1+.2",
        "1.2.3",
        "1.2.3-",
        "1.2.-3",
        "1.2.3-4-5",
        "\u0661.\u0662",
        "9" * 19 + ".1",
    ],
)
def test_another_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(CursorError, match=r"is no cursor.*5120\.5107"):
        Cursor.parse(text)


def test_in_order_all_events_before_the_last_are_read() -> None:
    progress = Progress(Position(3), in_order=True).after(9, time.time(), again=False)
    assert progress.position == Position(9)
    assert not progress.is_new(8) and progress.is_new(10)


def test_out_of_order_an_event_that_appears_below_the_last_one_is_new() -> None:
    progress = Progress(Position(3), in_order=False).after(9, time.time(), again=False)
    assert progress.is_new(8) and not progress.is_new(9)
    resumed = Progress(Cursor.parse(f"{progress.position}.0").finished, in_order=False)
    assert resumed.is_new(8) and not resumed.is_new(9)
    assert resumed.after(8, time.time(), again=False).position == Position(3, (8, 9))


def test_events_from_before_the_look_back_are_settled_also_after_a_restart() -> None:
    old = time.time() - LOOK_BACK_S - 1
    fresh = Progress(Position(3), in_order=False).after(7, old, again=False)
    assert fresh.position == Position(7)
    resumed = Progress(Position(3, (7, 9)), in_order=False)  # the times of 7 and 9 are not known
    assert resumed.after(7, old).position == Position(7, (9,))


def test_events_that_are_no_results_leave_no_numbers() -> None:
    progress = Progress(Position(3), in_order=False).after(9, time.time())
    assert progress.position == Position(3)
    assert progress.after(10, time.time() - LOOK_BACK_S - 1).position == Position(10)
