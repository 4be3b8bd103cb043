"""Ensembles: members with different segments, batches and failures, against each of them alone."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from long_forms import quick_or_long
from tiny_shares import Audio, Shares, joined, song

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.separation.ensemble import Ensemble, StreamingEnsemble, streaming_of
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.out_of_memory import CallLimits
from bandscope_dagster.separation.protocol import SegmentPlan, Separator
from bandscope_dagster.separation.streaming import (
    Results,
    Separated,
    SeparationFailed,
    StreamingSeparation,
)

POISON = 99.0


@dataclass
class Member(Shares):
    """Two stems, scaled by ``level``; fails on a poisoned segment, or above ``frames`` frames in one call."""

    level: float = 1.0
    frames: int = 1_000_000
    bears_poison: bool = True
    stems: tuple[str, ...] = ("most", "least")

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        self.calls.append((len(segments), segments.shape[-1]))
        if segments.shape[0] * segments.shape[-1] > self.frames:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if not self.bears_poison and (segments == POISON).any():
            raise ArithmeticError("poison")
        shares = torch.tensor([0.75, 0.25])[:, None, None] * self.level
        return (
            shares * torch.sin(segments)[:, None]
        )  # not linear, so that a wrong segment gives another result


def plan(length: int, stride: int, lead: int = 0) -> SegmentPlan:
    weights = np.linspace(1, 2, length, dtype=np.float32)
    return SegmentPlan(length, stride, (lead,), weights)


def members(batches: tuple[int, int, int] = (1, 2, 3)) -> tuple[Member, Member, Member]:
    return (
        Member(plan(12, 8), batches[0]),
        Member(plan(50, 25, 7), batches[1], level=0.5),
        Member(plan(9, 9), batches[2], level=2.0, normalised=True),
    )


COMPUTED = {"first": ((0, 0),), "mean": ((0, 1), (1, 0), (2, 1)), "remainder": ()}


def ensemble(of: tuple[Separator, ...], stems: tuple[str, ...] = tuple(COMPUTED)) -> Ensemble:
    return Ensemble(ModelIdentity("ensemble", "0" * 64), stems, of, COMPUTED)


def alone(member: Separator, samples: Audio, normalisation: Normalisation) -> Audio:
    streaming = StreamingSeparation(member)
    streaming.open("a", normalisation)
    results = [*streaming.push("a", samples), *streaming.finish("a"), *streaming.flush()]
    return joined(results)["a"].stems


def expected(samples: Audio, normalisation: Normalisation) -> Audio:
    outputs = [alone(member, samples, normalisation) for member in members()]
    first = outputs[0][0]
    mean = (outputs[0][1] + outputs[1][0] + outputs[2][1]) / 3
    return np.stack([first, mean, samples - first - mean])


@settings(max_examples=quick_or_long(10, long=1000), deadline=None)
@given(
    lengths=st.lists(st.integers(0, 300), min_size=1, max_size=5),
    block=st.integers(1, 100),
    batches=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    interleaved=st.booleans(),
)
def test_any_songs_in_any_blocks_give_what_the_members_give_alone(
    lengths: list[int], block: int, batches: tuple[int, int, int], interleaved: bool
) -> None:
    songs = {str(number): song(length, number) for number, length in enumerate(lengths)}
    levels = {name: Normalisation(0.1, 0.5 + int(name)) for name in songs}
    streaming = streaming_of(ensemble(members(batches)))
    assert isinstance(streaming, StreamingEnsemble)
    pieces = {
        name: [samples[:, start : start + block] for start in range(0, samples.shape[1], block)]
        for name, samples in songs.items()
    }
    order = [(name, index) for name in songs for index in range(len(pieces[name]) + 1)]
    if interleaved:
        order.sort(key=lambda each: each[1])
    results: Results = []
    for name in songs:
        streaming.open(name, levels[name])
    for name, index in order:
        more = index < len(pieces[name])
        results += streaming.push(name, pieces[name][index]) if more else streaming.finish(name)
    found = joined([*results, *streaming.flush()])
    assert found.keys() == songs.keys()
    for name, samples in songs.items():
        assert np.array_equal(found[name].mixture, samples)
        np.testing.assert_allclose(found[name].stems, expected(samples, levels[name]), rtol=0, atol=1e-6)


def test_a_choice_of_stems_has_the_rest_of_all() -> None:
    samples = song(100)
    streaming = streaming_of(ensemble(members(), ("remainder",)))
    streaming.open("a", Normalisation())
    results = [*streaming.push("a", samples), *streaming.finish("a"), *streaming.flush()]
    wanted = expected(samples, Normalisation())[2:]
    np.testing.assert_allclose(joined(results)["a"].stems, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("weak", [0, 1, 2])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_song_that_fails_in_one_member_fails_once_and_alone(weak: int, batch: int) -> None:
    of = members((batch, batch, batch))
    of[weak].bears_poison = False
    songs = {"a": song(200, 1), "bad": song(200, 2), "c": song(200, 3)}
    songs["bad"][0, 90] = POISON
    streaming = streaming_of(ensemble(of))
    results: Results = []
    for name, samples in songs.items():
        streaming.open(name, Normalisation())
        for start in range(0, 200, 20):
            results += streaming.push(name, samples[:, start : start + 20])
        results += streaming.finish(name)
    results += streaming.flush()
    failures = [result for result in results if isinstance(result, SeparationFailed)]
    assert [(failure.song, type(failure.error)) for failure in failures] == [("bad", ArithmeticError)]
    kept = joined([result for result in results if result.song != "bad"])
    for name in ("a", "c"):
        wanted = expected(songs[name], Normalisation())
        np.testing.assert_allclose(kept[name].stems, wanted, rtol=0, atol=1e-6)
    streaming.open("bad", Normalisation())  # it has ended, so it can be tried again
    retried = [*streaming.push("bad", songs["a"]), *streaming.finish("bad"), *streaming.flush()]
    np.testing.assert_allclose(joined(retried)["bad"].stems, expected(songs["a"], Normalisation()), atol=1e-6)


def test_a_dropped_song_leaves_the_others_alone() -> None:
    streaming = streaming_of(ensemble(members((4, 4, 4))))
    samples = song(100)
    for name in ("a", "gone"):
        streaming.open(name, Normalisation())
    results = streaming.push("a", samples) + streaming.push("gone", song(80))
    streaming.drop("gone")
    results += [*streaming.finish("a"), *streaming.flush()]
    results = [result for result in results if result.song == "a"]
    wanted = expected(samples, Normalisation())
    np.testing.assert_allclose(joined(results)["a"].stems, wanted, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="'gone' is not open"):
        streaming.push("gone", samples)


def test_a_member_without_memory_takes_less_and_the_lowest_limits_are_told() -> None:
    of = members((1, 4, 1))
    of[1].frames = 60  # a segment has 50
    samples = song(400)
    streaming = streaming_of(ensemble(of))
    streaming.open("a", Normalisation())
    results = joined([*streaming.push("a", samples), *streaming.finish("a"), *streaming.flush()])
    assert {count for count, _ in of[1].calls[2:]} == {1}, "four, then two were too many"
    assert results["a"].used == CallLimits("cpu", 1, 9)
    np.testing.assert_allclose(results["a"].stems, expected(samples, Normalisation()), rtol=0, atol=1e-6)


def test_the_member_that_is_ahead_waits_and_holds_no_more_in_a_longer_song() -> None:
    streaming = streaming_of(ensemble(members((1, 3, 2))))
    assert isinstance(streaming, StreamingEnsemble)
    streaming.open("a", Normalisation())
    held: list[int] = []
    returned = 0
    for number in range(400):
        for result in streaming.push("a", song(10, number)):
            assert isinstance(result, Separated)
            returned += result.mixture.shape[1]
        waiting = streaming._songs["a"]
        held.append(max(each.frames for each in [*waiting.outputs, waiting.mixture]))
        assert (number + 1) * 10 - returned <= 3 * 25 + 50 + 10, "the slowest member decides"
    assert 50 < max(held) <= 3 * 25 + 50, "of 4000 frames; the slowest member's batch and its overlap"
