"""tagging/windows: the windows do not depend on the blocks, and the end of a song is covered."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bandscope_dagster.tagging.protocol import WindowPlan
from bandscope_dagster.tagging.windows import DIGITAL_SILENCE_DB, Window, Windows

TEN = WindowPlan(sample_rate=100, length=10, hop=10, lead=3)


def song(frames: int) -> NDArray[np.float32]:
    """A ramp: each sample is the number of its frame."""
    return np.arange(1, frames + 1, dtype=np.float32)


def cut(plan: WindowPlan, audio: NDArray[np.float32]) -> list[Window]:
    windows = Windows(plan)
    return windows.push(audio) + windows.finish()


def spans(windows: list[Window]) -> list[tuple[int, int]]:
    return [(window.start_frame, window.frames) for window in windows]


def test_windows_follow_the_plan_with_the_audio_before_them_as_lead():
    first, second, third = cut(TEN, song(30))
    assert spans([first, second, third]) == [(0, 10), (10, 10), (20, 10)]
    np.testing.assert_array_equal(second.samples, song(30)[7:20])
    np.testing.assert_array_equal(third.samples, song(30)[17:30])


def test_before_the_song_starts_there_is_its_reflection():
    (window,) = cut(TEN, song(10))
    np.testing.assert_array_equal(window.samples, [4, 3, 2, *range(1, 11)])


def test_a_rest_of_half_a_window_gets_a_window_that_ends_with_the_song():
    windows = cut(TEN, song(25))
    assert spans(windows) == [(0, 10), (10, 10), (15, 10)]
    np.testing.assert_array_equal(windows[-1].samples, song(25)[12:])


def test_a_shorter_rest_is_added_to_the_window_before():
    windows = cut(TEN, song(24))
    assert spans(windows) == [(0, 10), (10, 14)]
    np.testing.assert_array_equal(windows[-1].samples, song(24)[7:20])


def test_a_rest_of_a_second_and_a_half_gets_a_window_however_long_windows_are():
    long = WindowPlan(sample_rate=100, length=3000, hop=3000)
    assert spans(cut(long, song(3150))) == [(0, 3000), (150, 3000)]
    assert spans(cut(long, song(3149))) == [(0, 3149)]


def test_a_song_shorter_than_a_window_is_repeated_and_keeps_its_true_length():
    (window,) = cut(TEN, song(4))
    assert (window.start_frame, window.frames) == (0, 4)
    np.testing.assert_array_equal(window.samples, [4, 3, 2, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2])


def test_an_empty_song_has_no_windows():
    assert cut(TEN, song(0)) == []
    assert Windows(TEN).finish() == []


def test_a_window_without_sound_is_marked_silent():
    # RMS of −71 dBFS, −69 dBFS, and digital silence after a loud lead.
    levels = np.repeat(10 ** (np.array([-71, -69, -300]) / 20), 10).astype(np.float32)
    windows = cut(TEN, levels)
    assert [window.silent for window in windows] == [True, False, True]
    assert [window.level_dbfs for window in windows] == pytest.approx(
        [-71, -69, DIGITAL_SILENCE_DB], abs=0.01
    )


def test_stereo_is_refused():
    with pytest.raises(ValueError, match=r"mono.*\(2, 10\)"):
        Windows(TEN).push(np.zeros((2, 10), np.float32))


def test_a_window_outlives_the_block_that_it_was_cut_from():
    block = song(10)
    windows = Windows(TEN)
    windows.push(block)
    block[:] = 0
    np.testing.assert_array_equal(windows.finish()[0].samples[3:], song(10))


plans = st.integers(1, 20).flatmap(
    lambda length: st.builds(
        WindowPlan,
        sample_rate=st.just(100),
        length=st.just(length),
        hop=st.integers(1, length),
        lead=st.integers(0, length - 1),
    )
)


@given(plan=plans, blocks=st.lists(st.integers(0, 50), max_size=12))
def test_windows_do_not_depend_on_the_size_of_blocks(plan: WindowPlan, blocks: list[int]):
    audio = song(sum(blocks))
    windows, streamed = Windows(plan), list[Window]()
    for end, frames in zip(np.cumsum(blocks), blocks, strict=True):
        streamed += windows.push(audio[end - frames : end])
    streamed += windows.finish()

    whole = cut(plan, audio)
    assert spans(streamed) == spans(whole)
    for one, other in zip(streamed, whole, strict=True):
        np.testing.assert_array_equal(one.samples, other.samples)


@given(plan=plans, frames=st.integers(1, 200))
def test_windows_cover_the_song_and_hold_its_audio(plan: WindowPlan, frames: int):
    audio = song(frames)
    windows = cut(plan, audio)
    covered = {frame for start, length in spans(windows) for frame in range(start, start + length)}
    assert covered == set(range(frames))
    if frames >= plan.length:
        led = np.pad(audio, (plan.lead, 0), "reflect")
        for window in windows:
            held = led[window.start_frame : window.start_frame + plan.lead + plan.length]
            np.testing.assert_array_equal(window.samples, held)


def peak_bytes(windows_long: int) -> int:
    windows = Windows(WindowPlan(sample_rate=16_000, length=16_000, hop=16_000, lead=256))
    block = np.zeros(5_000, np.float32)
    tracemalloc.start()
    for _ in range(windows_long * 16_000 // len(block)):
        windows.push(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_song():
    assert peak_bytes(200) < 1.1 * peak_bytes(10)
