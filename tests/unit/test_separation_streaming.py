"""Streaming separation with separators whose correct output is known: each stem is a share of the mixture."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from long_forms import quick_or_long
from numpy.typing import NDArray
from tiny_shares import FADED, Audio, Shares, joined, run, song, stems_of

from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.protocol import SegmentPlan
from bandscope_dagster.separation.streaming import (
    NonFiniteStems,
    Results,
    Separated,
    SeparationFailed,
    StreamingSeparation,
)

POISON = 99.0  # a sample on which some of the separators here fail


class RaisesOnPoison(Shares):
    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        stems = super().separate(segments)
        if (segments == POISON).any():
            raise ArithmeticError("poison in the batch")
        return stems


class NaNOnPoison(Shares):
    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        stems = super().separate(segments)
        stems[(segments == POISON)[:, None].expand_as(stems)] = np.nan
        return stems


class OneAtATime(Shares):
    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        if len(segments) > 1:
            raise ArithmeticError("two at once")
        return super().separate(segments)


class ForgetsAStem(Shares):
    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        return super().separate(segments)[:, :2]


def poisoned(frames: int, at: int) -> Audio:
    samples = song(frames)
    samples[0, at] = POISON
    return samples


def opened(separator: Shares, *songs: str) -> StreamingSeparation:
    streaming = StreamingSeparation(separator)
    for name in songs or ("a",):
        streaming.open(name, Normalisation())
    return streaming


@st.composite
def weighted_plans(draw: st.DrawFn) -> SegmentPlan:
    length = draw(st.integers(1, 20))
    stride = draw(st.integers(1, length))
    weights = st.lists(st.floats(0.125, 1, width=32), min_size=length, max_size=length)
    leads = draw(st.lists(st.integers(0, stride - 1), min_size=1, max_size=3))
    centred = draw(st.booleans())
    return SegmentPlan(length, stride, tuple(leads), np.array(draw(weights), np.float32), centred)


@settings(max_examples=quick_or_long(50, long=200))
@given(plan=st.just(FADED) | weighted_plans(), frames=st.integers(0, 70), batch=st.integers(1, 5))
def test_overlap_add_gives_every_frame_once_for_any_plan_and_length(
    plan: SegmentPlan, frames: int, batch: int
) -> None:
    mixture = song(frames)
    result = joined(run(StreamingSeparation(Shares(plan, batch)), {"a": mixture}))["a"]
    np.testing.assert_array_equal(result.mixture, mixture)
    np.testing.assert_allclose(result.stems, stems_of(mixture), rtol=0, atol=1e-6)


@settings(max_examples=quick_or_long(50, long=200))
@given(
    plan=st.just(FADED) | weighted_plans(),
    batch=st.integers(1, 5),
    pushes=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=15),
    flush_every=st.integers(1, 20),
    device=st.sampled_from(
        ["cpu", "cpu:0"]
    ),  # the second counts as an accelerator: results come a batch later
)
def test_stems_do_not_depend_on_blocks_batches_or_the_other_songs(
    plan: SegmentPlan, batch: int, pushes: list[tuple[str, int]], flush_every: int, device: str
) -> None:
    songs = {
        name: song(sum(frames for pushed, frames in pushes if pushed == name), seed)
        for seed, name in enumerate("abc")
    }
    streaming = StreamingSeparation(Shares(plan, batch, device=device))
    for name in songs:
        streaming.open(name, Normalisation())
    results: Results = []
    taken = dict.fromkeys(songs, 0)
    for count, (name, frames) in enumerate(pushes, start=1):
        results += streaming.push(name, songs[name][:, taken[name] : taken[name] + frames])
        taken[name] += frames
        if count % flush_every == 0:
            results += streaming.flush()
    for name in "cab":
        results += streaming.finish(name)
    together = joined(results + streaming.flush())

    assert set(together) == set(songs)
    for name, mixture in songs.items():
        alone = joined(run(StreamingSeparation(Shares(plan)), {name: mixture}))[name]
        assert together[name].stems.tobytes() == alone.stems.tobytes()
        assert together[name].mixture.tobytes() == mixture.tobytes()


def test_samples_come_out_as_soon_as_no_later_segment_reaches_them() -> None:
    streaming = opened(Shares())
    assert streaming.push("a", song(7)) == []
    (piece,) = streaming.push("a", song(1))  # frame 8 ends the first segment; the second begins at frame 4
    assert piece.mixture.shape == (2, 4)
    assert not piece.last


def test_songs_share_the_batches_of_the_model() -> None:
    separator = Shares(batch=4)
    results = run(StreamingSeparation(separator), {name: song(12) for name in "abcd"})  # two segments each
    assert len(joined(results)) == 4
    assert [count for count, _ in separator.calls] == [4, 4]


def test_the_model_waits_for_a_full_batch_until_it_is_flushed() -> None:
    separator = Shares(batch=4)
    streaming = opened(separator)
    assert streaming.push("a", song(12)) == []
    assert separator.calls == []
    assert len(streaming.flush()) == 1
    assert [count for count, _ in separator.calls] == [1]


@pytest.mark.parametrize("blocks", [[], [song(0)]], ids=["never pushed", "empty block"])
def test_a_song_of_zero_frames_ends_with_one_empty_piece(blocks: list[Audio]) -> None:
    streaming = opened(Shares())
    for block in blocks:
        assert streaming.push("a", block) == []
    (piece,) = streaming.finish("a")
    assert isinstance(piece, Separated)
    assert piece.last
    assert piece.mixture.shape == (2, 0)
    assert piece.stems.shape == (3, 2, 0)


def test_a_song_that_was_given_out_before_its_end_was_known_ends_with_an_empty_piece() -> None:
    streaming = opened(Shares(SegmentPlan(length=8, stride=8, weights=np.ones(8, np.float32))))
    (all_of_it,) = streaming.push("a", song(8))
    (end,) = streaming.finish("a")
    assert (all_of_it.mixture.shape[1], all_of_it.last) == (8, False)
    assert (end.mixture.shape[1], end.last) == (0, True)


def resident_bytes() -> int:
    """The resident size of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.long
def test_memory_does_not_grow_with_the_song() -> None:
    second = 44_100
    plan = SegmentPlan(2 * second, second, (0, 10_000), np.ones(2 * second, np.float32), centred=True)
    streaming = opened(Shares(plan, batch=2))
    minutes, frames, held = 20, 0, list[int]()
    block = song(second)
    for _ in range(minutes):
        for _ in range(60):
            for piece in streaming.push("a", block.copy()):
                frames += piece.stems.shape[-1]
        held.append(resident_bytes())
    for piece in [*streaming.finish("a"), *streaming.flush()]:
        frames += piece.stems.shape[-1]

    assert frames == minutes * 60 * second
    assert max(held) - held[0] < 60 * block.nbytes  # 21 MB; the mixture alone has 423 MB


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
@pytest.mark.parametrize("separator", [RaisesOnPoison, NaNOnPoison])
def test_only_the_song_whose_own_segment_fails_is_lost(separator: Callable[..., Shares], batch: int) -> None:
    songs = {"a": song(50, seed=1), "bad": poisoned(50, at=25), "c": song(50, seed=2)}
    results = run(StreamingSeparation(separator(batch=batch)), songs)

    failures = [result for result in results if isinstance(result, SeparationFailed)]
    assert [failure.song for failure in failures] == ["bad"]
    assert isinstance(failures[0].error, ArithmeticError | NonFiniteStems)
    kept = joined([result for result in results if result.song != "bad"])
    for name in ("a", "c"):
        np.testing.assert_allclose(kept[name].stems, stems_of(songs[name]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_failed_song_gives_what_was_sound_before_then_one_failure_then_nothing(batch: int) -> None:
    streaming = opened(RaisesOnPoison(batch=batch), "bad")
    mixture = poisoned(60, at=30)
    results: Results = []
    for start in range(0, 60, 5):
        results += streaming.push("bad", mixture[:, start : start + 5])
    results += [*streaming.finish("bad"), *streaming.flush()]

    *sound, failure = results
    assert isinstance(failure, SeparationFailed)
    frames = 0
    for piece in sound:
        assert isinstance(piece, Separated)
        assert not piece.last
        frames += piece.mixture.shape[1]
    assert frames == 20  # frame 30 is in the segment from 20 to 31, and in no earlier one


def test_a_failed_song_can_be_tried_again_once_its_input_has_ended() -> None:
    streaming = StreamingSeparation(RaisesOnPoison())
    first = run(streaming, {"a": poisoned(30, at=3)})
    assert [type(result) for result in first] == [SeparationFailed]
    assert joined(run(streaming, {"a": song(30)}))["a"].mixture.shape == (2, 30)


def test_a_batch_that_fails_at_once_is_separated_one_by_one_and_said_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    songs = {"a": song(20, seed=1), "b": song(20, seed=2)}
    with caplog.at_level(logging.WARNING):
        result = joined(run(StreamingSeparation(OneAtATime(batch=4)), songs))
    assert set(result) == {"a", "b"}
    assert "shares failed on 4 segments, trying one by one: ArithmeticError: two at once" in caplog.text


def test_a_failure_of_one_song_reaches_every_song_only_if_each_fails_alone() -> None:
    results = run(StreamingSeparation(ForgetsAStem(batch=2)), {"a": song(20), "b": song(20)})
    assert [(type(result), result.song) for result in results] == [
        (SeparationFailed, "a"),
        (SeparationFailed, "b"),
    ]
    assert "shares returned (1, 2, 2, 12) instead of (1, 3, 2, 12)" in str(results[0].error)


def test_output_that_is_not_finite_names_the_song_the_place_and_the_model() -> None:
    plan = SegmentPlan(44_100, 44_100, weights=np.ones(44_100, np.float32))
    results = run(StreamingSeparation(NaNOnPoison(plan)), {"bad": poisoned(100_000, at=50_000)})
    message = str(results[-1].error)
    assert "song 'bad', 1.0 to 2.0 s: 3 samples from shares are not finite" in message
    assert "BANDSCOPE_DEVICE=cpu" in message


def test_a_mixture_that_is_not_finite_is_not_blamed_on_the_model() -> None:
    mixture = song(30)
    mixture[1, 10] = np.inf
    (failure,) = [
        result
        for result in run(StreamingSeparation(Shares()), {"bad": mixture})
        if not hasattr(result, "stems")
    ]
    assert "song 'bad', 0.0 to 0.0 s: 1 samples of the mixture are not finite" in str(failure.error)


def test_an_error_does_not_keep_the_tensors_of_the_failed_call() -> None:
    results = run(StreamingSeparation(RaisesOnPoison()), {"bad": poisoned(8, at=3)})
    frames = []
    trace = results[0].error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    assert frames[-1].f_code.co_name == "separate"  # the lines are kept
    assert frames[-1].f_locals == {}


def test_a_dropped_song_leaves_nothing_behind_and_the_others_alone() -> None:
    streaming = opened(Shares(batch=8), "a", "gone")
    mixture = song(30)
    results = streaming.push("a", mixture) + streaming.push("gone", song(30, seed=1))
    streaming.drop("gone")
    results += [*streaming.finish("a"), *streaming.flush()]
    kept = joined(results)
    assert set(kept) == {"a"}
    np.testing.assert_allclose(kept["a"].stems, stems_of(mixture), rtol=0, atol=1e-6)


def test_more_input_for_a_finished_song_that_still_waits_is_an_error() -> None:
    streaming = opened(Shares(batch=8))
    streaming.push("a", song(10))
    streaming.finish("a")
    with pytest.raises(ValueError, match="song 'a' is finished"):
        streaming.push("a", song(10))


@pytest.mark.parametrize(
    "block", [np.zeros((10, 2), np.float32), np.zeros(10, np.float32), np.zeros((2, 10))], ids=str
)
def test_a_block_of_another_shape_or_type_is_refused(block: NDArray[np.generic]) -> None:
    with pytest.raises(ValueError, match=r"song 'a': a block must be \(2, n\) float32, found"):
        opened(Shares()).push("a", block)
