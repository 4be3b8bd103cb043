"""Failed songs of ``bandscope run --watch``: growing waits, an end of them, and patience with a full disk."""

import math

import pytest

from bandscope_dagster.cli import songs_again
from bandscope_dagster.cli.songs_again import ATTEMPTS, FIRST_WAIT_S, SongsAgain


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(songs_again, "monotonic", lambda: now[0])
    return now


def always(_: str) -> bool:
    return True


def never(_: str) -> bool:
    return False


def test_the_waits_grow_and_the_last_failure_gives_the_song_up(clock: list[float]) -> None:
    songs, waits = SongsAgain(), list[float]()
    for _ in range(ATTEMPTS - 1):
        assert songs.failed("song", disk_was_full=False)
        waits.append(songs.next_in_s)
        assert songs.take(always) == ([], 0), "not before"
        clock[0] += waits[-1]
        assert songs.take(always) == (["song"], 0)
        assert songs.take(always) == ([], 0), "once"
    assert waits == [FIRST_WAIT_S * 2**number for number in range(ATTEMPTS - 1)]
    assert not songs.failed("song", disk_was_full=False)
    assert songs.next_in_s == math.inf
    assert songs.failed("song", disk_was_full=False), "a later start of a song counts from the beginning"


def test_a_full_disk_never_gives_a_song_up_and_starts_no_run_until_it_has_room(clock: list[float]) -> None:
    songs = SongsAgain()
    for _ in range(3 * ATTEMPTS):
        assert songs.failed("song", disk_was_full=True)
        clock[0] += songs.next_in_s
        assert songs.take(never) == ([], 1)
        assert songs.next_in_s == FIRST_WAIT_S
        clock[0] += FIRST_WAIT_S
        assert songs.take(always) == (["song"], 0)


def test_songs_that_are_done_or_forgotten_are_not_computed_again(clock: list[float]) -> None:
    songs = SongsAgain()
    for song in ("done", "forgotten", "left"):
        songs.failed(song, disk_was_full=False)
    songs.done(["done", "never failed"])
    songs.keep(["left", "other"])
    clock[0] += FIRST_WAIT_S
    assert songs.take(never) == (["left"], 0)


def test_the_next_song_is_the_one_that_is_due_first(clock: list[float]) -> None:
    songs = SongsAgain()
    songs.failed("early", disk_was_full=False)
    clock[0] += FIRST_WAIT_S / 2
    songs.failed("late", disk_was_full=False)
    assert songs.next_in_s == FIRST_WAIT_S / 2


def test_a_disk_that_is_full_after_failures_does_not_give_the_song_up_but_the_next_failure_does(
    clock: list[float],
) -> None:
    songs = SongsAgain()
    for _ in range(ATTEMPTS - 1):
        assert songs.failed("song", disk_was_full=False)
    assert songs.failed("song", disk_was_full=True)
    assert not songs.failed("song", disk_was_full=False)
