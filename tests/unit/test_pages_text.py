"""Values in the form that people read."""

from datetime import UTC, datetime

import pytest

from bandscope_dagster.pages import text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.7, "0:00.7"), (0.97, "0:01"), (1.0, "0:01"), (59.99, "0:59"), (187.2, "3:07"), (3727, "1:02:07")],
)
def test_a_duration_is_shown_as_in_music_players(seconds: float, shown: str) -> None:
    assert text.clock(seconds) == shown


def test_a_span_never_has_sixty_seconds() -> None:
    assert text.span(59.96, 3599.99) == "1:00.0\N{EN DASH}60:00.0"


def test_levels_have_a_minus_sign_and_no_level_is_a_dash() -> None:
    assert text.decibels(-14.26, "LUFS") == "\N{MINUS SIGN}14.3 LUFS"
    assert text.decibels(None, "LUFS") == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("share", "shown"), [(0.0, "0 %"), (0.001, "< 1 %"), (0.125, "12 %"), (1.0, "100 %")]
)
def test_a_positive_share_is_never_shown_as_zero(share: float, shown: str) -> None:
    assert text.percent(share) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (99_900, "99.9 kB"), (3_420_000, "3.4 MB")],
)
def test_a_size_has_the_unit_that_fits(size: int, shown: str) -> None:
    assert text.megabytes(size) == shown


def test_a_moment_names_its_zone() -> None:
    assert text.moment(datetime(2026, 3, 1, 14, 5, 59, tzinfo=UTC)) == "2026-03-01 14:05 UTC"


@pytest.mark.parametrize("seconds", [0.4, 3.0, 21.0, 240.0, 7200.0])
def test_an_axis_has_a_few_round_times_from_zero(seconds: float) -> None:
    times = [time for time, _ in text.ticks(seconds)]
    assert times[0] == 0 and times[-1] <= seconds and 3 <= len(times) <= text.TICKS + 1
    assert len({label for _, label in text.ticks(seconds)}) == len(times)


def test_invisible_characters_become_spaces_and_right_to_left_text_stays() -> None:
    assert text.visible("a\u202eb\x00c\ud800 שיר") == "a b c שיר"
