"""Values as people read them."""

from datetime import UTC, datetime

import pytest

from bandscope_dagster.pages import text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.7, "0:00.7"), (0.97, "0:01"), (59.99, "0:59"), (187.2, "3:07"), (3727, "1:02:07")],
)
def test_a_clock_says_what_music_players_say(seconds: float, told: str) -> None:
    assert text.clock(seconds) == told


def test_a_span_never_has_sixty_seconds() -> None:
    assert text.span(59.96, 3599.99) == "1:00.0\N{EN DASH}60:00.0"


def test_levels_have_a_minus_sign_and_no_level_is_a_dash() -> None:
    assert text.decibels(-14.26, "LUFS") == "\N{MINUS SIGN}14.3 LUFS"
    assert text.decibels(None, "LUFS") == "\N{EN DASH}"


@pytest.mark.parametrize(("share", "told"), [(0.0, "0 %"), (0.001, "< 1 %"), (0.125, "12 %"), (1.0, "100 %")])
def test_a_share_that_is_there_is_never_told_as_nothing(share: float, told: str) -> None:
    assert text.percent(share) == told


@pytest.mark.parametrize(("size", "told"), [(0, "0 bytes"), (99_900, "99.9 kB"), (3_420_000, "3.4 MB")])
def test_a_size_has_the_unit_that_fits(size: int, told: str) -> None:
    assert text.megabytes(size) == told


def test_a_moment_names_its_zone() -> None:
    assert text.moment(datetime(2026, 3, 1, 14, 5, 59, tzinfo=UTC)) == "2026-03-01 14:05 UTC"


@pytest.mark.parametrize("seconds", [0.4, 3.0, 21.0, 240.0, 7200.0])
def test_an_axis_has_a_few_round_times_from_the_start_on(seconds: float) -> None:
    times = [time for time, _ in text.ticks(seconds)]
    assert times[0] == 0 and times[-1] <= seconds and 3 <= len(times) <= text.TICKS + 1
    assert len({label for _, label in text.ticks(seconds)}) == len(times)


def test_what_cannot_be_seen_becomes_a_space_and_right_to_left_text_stays() -> None:
    assert text.visible("a\u202eb\x00c\ud800 שיר") == "a b c שיר"
