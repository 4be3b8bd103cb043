"""Out of memory: the batch is halved, then the segment, and the stems stay correct."""

import logging
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_demucs import SEGMENT, reference, tiny_demucs, tiny_network
from tiny_shares import Shares, joined, run, song, stems_of

from bandscope_dagster.separation.demucs.model import Demucs, triangular_plan
from bandscope_dagster.separation.out_of_memory import CallLimits, OutOfMemoryRetry, is_out_of_memory
from bandscope_dagster.separation.streaming import SeparationFailed, StreamingSeparation

LENGTH = 64


@dataclass
class Limited(Shares):
    """A separator that runs out of memory above ``frames`` frames in one call."""

    plan = triangular_plan(LENGTH, 0.25)
    shorter_plans = (triangular_plan(LENGTH // 2, 0.25), triangular_plan(LENGTH // 4, 0.25))
    frames: int = LENGTH

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        stems = super().separate(segments)
        if segments.shape[0] * segments.shape[-1] > self.frames:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return stems


def limited(frames: int, batch: int) -> Limited:
    return Limited(Limited.plan, batch, Limited.shorter_plans, frames=frames)


@pytest.mark.parametrize(
    ("frames", "batch", "used"),
    [
        (8 * LENGTH, 8, CallLimits("cpu", 8, LENGTH)),
        (4 * LENGTH, 8, CallLimits("cpu", 4, LENGTH)),
        (LENGTH, 8, CallLimits("cpu", 1, LENGTH)),
        (LENGTH, 7, CallLimits("cpu", 1, LENGTH)),
        (LENGTH // 2, 8, CallLimits("cpu", 1, LENGTH // 2)),
        (LENGTH // 4, 1, CallLimits("cpu", 1, LENGTH // 4)),
    ],
)
def test_less_is_taken_until_it_fits_and_the_stems_are_right(
    frames: int, batch: int, used: CallLimits
) -> None:
    songs = {"a": song(500, seed=1), "b": song(333, seed=2), "c": song(10, seed=3)}
    results = joined(run(StreamingSeparation(limited(frames, batch)), songs))
    for name, mixture in songs.items():
        np.testing.assert_allclose(results[name].stems, stems_of(mixture), rtol=0, atol=1e-6)
        assert results[name].used == used


def test_what_was_too_much_once_is_not_tried_again() -> None:
    separator = limited(LENGTH // 2, batch=4)
    run(StreamingSeparation(separator), {"a": song(1000)})
    assert separator.calls[:3] == [(4, LENGTH), (2, LENGTH), (1, LENGTH)]
    assert set(separator.calls[3:]) == {(1, LENGTH // 2)}


def test_a_song_that_was_done_before_memory_ran_out_says_what_it_used() -> None:
    separator = limited(4 * LENGTH, batch=4)
    streaming = StreamingSeparation(separator)
    before = joined(run(streaming, {"a": song(LENGTH)}))["a"]
    separator.frames = LENGTH
    after = joined(run(streaming, {"b": song(10 * LENGTH)}))["b"]
    assert (before.used, after.used) == (CallLimits("cpu", 4, LENGTH), CallLimits("cpu", 1, LENGTH))


def test_where_nothing_fits_the_song_fails_with_the_error_of_the_device(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        results = run(StreamingSeparation(limited(1, batch=2)), {"a": song(100)})
    (failure,) = results
    assert isinstance(failure, SeparationFailed)
    assert isinstance(failure.error, torch.OutOfMemoryError)
    assert (
        "shares ran out of memory on cpu and continues with 1 segments of 64 frames at a time" in caplog.text
    )
    assert "1 segments of 16 frames" in caplog.text


def test_a_model_that_takes_no_shorter_segment_keeps_its_own() -> None:
    results = run(StreamingSeparation(Limited(Limited.plan, 2, (), frames=1)), {"a": song(100)})
    assert [type(result) for result in results] == [SeparationFailed]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
    ids=str,
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_the_error_that_this_machine_raises_counts() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_out_of_memory(raised.value)


class WithLittleMemory:
    """A real tiny HTDemucs that runs out of memory above ``frames`` frames in one call."""

    def __init__(self, demucs: Demucs, frames: int) -> None:
        self._demucs, self._frames = demucs, frames
        self.calls: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._demucs, name)

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        self.calls.append((len(segments), segments.shape[-1]))
        if segments.shape[0] * segments.shape[-1] > self._frames:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._demucs.separate(segments)


def test_demucs_walks_the_ladder_and_each_segment_is_what_demucs_makes_of_it_in_parts() -> None:
    model = WithLittleMemory(tiny_demucs(batch=4), frames=SEGMENT // 2)
    segments = torch.randn((3, 2, SEGMENT), generator=torch.Generator().manual_seed(0))
    retry = OutOfMemoryRetry(model)
    outputs = retry.separate(segments)
    assert retry.limits == CallLimits("cpu", 1, SEGMENT // 2)
    assert model.calls[:3] == [(3, SEGMENT), (1, SEGMENT), (1, SEGMENT // 2)]
    for segment, output in zip(segments, outputs, strict=True):
        wanted = reference(segment, tiny_network(segment=SEGMENT // 2))
        assert isinstance(output, torch.Tensor)
        torch.testing.assert_close(output, wanted, rtol=0, atol=1e-5)
