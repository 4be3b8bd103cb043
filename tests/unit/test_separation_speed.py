"""The speed of a separator from a short call, and durations in words."""

import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_shares import Shares

from bandscope_dagster.separation import speed
from bandscope_dagster.separation.protocol import SegmentPlan
from bandscope_dagster.separation.speed import in_words, measure_speed

SECOND = 44_100


@dataclass(eq=False)
class Slow(Shares):
    """Takes as long for every second of a segment as ``seconds`` says."""

    seconds: float = 0.05
    __hash__ = object.__hash__

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        self.calls.append((len(segments), segments.shape[-1]))
        time.sleep(self.seconds * segments.shape[0] * segments.shape[-1] / SECOND)
        return torch.zeros((len(segments), 3, 2, segments.shape[-1]))


def plan(length: float, overlap: float, leads: tuple[int, ...] = (0,)) -> SegmentPlan:
    frames = round(length * SECOND)
    return SegmentPlan(frames, round(frames * (1 - overlap)), leads, np.ones(frames, np.float32))


@pytest.mark.parametrize(
    ("separator", "factor"),
    [
        (Slow(plan(2.0, 0)), 0.05),
        (Slow(plan(2.0, 0.25)), 0.05 / 0.75),
        (Slow(plan(2.0, 0.5, (0, 100, 200))), 0.3),
        (Slow(plan(2.0, 0.25), batch=4), 0.05 / 0.75),
        (Slow(plan(60.0, 0.25), shorter_plans=(plan(30.0, 0.25), plan(2.0, 0.25))), 0.05 / 0.75),
    ],
    ids=["segments", "overlap", "passes", "batch", "the shortest segment"],
)
def test_the_speed_is_the_time_for_a_second_of_a_song(separator: Slow, factor: float) -> None:
    assert factor <= measure_speed(separator) <= 4 * factor  # a busy machine sleeps longer
    assert {frames for _, frames in separator.calls} == {2 * SECOND}
    calls = len(separator.calls)
    measure_speed(separator)
    assert len(separator.calls) == calls <= 2, "it is measured once per process"


def test_a_long_call_is_not_repeated() -> None:
    separator = Slow(plan(1.0, 0), seconds=1.05)
    assert measure_speed(separator) >= 1.05 and len(separator.calls) == 1


def test_the_first_call_on_an_accelerator_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SHORT_S", 0.01)
    separator = Slow(plan(1.0, 0), device="meta")  # a device without hardware, as an accelerator that is slow
    assert measure_speed(separator) >= 0.05 and len(separator.calls) == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 s"),
        (41.4, "41 s"),
        (89.9, "90 s"),
        (120, "2 min"),
        (25.4 * 60, "25 min"),
        (89.6 * 60, "1 h 30 min"),
        (66 * 60 + 3600, "2 h 10 min"),
        (119.6 * 60, "2 h"),
        (47.9 * 3600, "47 h 50 min"),
        (10 * 86_400, "10 days"),
    ],
)
def test_an_estimate_is_rounded_as_people_say_it(seconds: float, text: str) -> None:
    assert in_words(seconds) == text
