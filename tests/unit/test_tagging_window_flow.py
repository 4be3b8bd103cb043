"""tagging/window_flow: each answer makes room for the next window, and an error is that of one source alone."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from level_tagger import LOUD, PLAN, RATE, Audio, ByLevel, always, level

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.tagging.protocol import ON_A_SERVER, Heard, RemoteTagger, Tag, WindowPlan
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.window_flow import AHEAD, WindowFlow, queue_for
from bandscope_dagster.tagging.window_queue import WindowQueue

LONG_S = 30.0


@dataclass
class Elsewhere:
    """A remote tagger whose answers the test gives, in any order; a window's answer is its level."""

    batch: int = 2
    device: str = ON_A_SERVER
    plan: WindowPlan = PLAN
    identity: ModelIdentity = field(default_factory=lambda: ModelIdentity("elsewhere", ""))
    asked: list[tuple[Future[Heard], float]] = field(default_factory=list)
    has_asked: threading.Condition = field(default_factory=threading.Condition)

    def ask(self, window: Audio) -> Future[Heard]:
        future = Future[Heard]()
        with self.has_asked:
            self.asked.append((future, float(np.abs(window).max())))
            self.has_asked.notify_all()
        return future

    def answer(self, number: int) -> None:
        """Answer the window that was asked with this number."""
        future, loudest = self.asked[number]
        future.set_result(Heard([Tag(f"{loudest:.4f}", None)]))

    def wait_for(self, number: int) -> bool:
        """Wait until so many windows were asked."""
        with self.has_asked:
            return self.has_asked.wait_for(lambda: len(self.asked) >= number, LONG_S)


def windows_of(source: SourceTags, *levels: float) -> list:
    return source.push(level(*levels)) + source.finish()


def finish(flow: WindowFlow) -> None:
    """Wait for the answers to all windows."""
    while flow.collect(wait=True):
        pass


def labels(source: SourceTags) -> list[tuple[int, str]]:
    """Start and label of each tagged window, in the order of the song."""
    found = [(each.start_frame, tag.label) for each in source.tagged for tag in each.heard.tags]
    return sorted(found)


def test_the_queue_of_a_tagger_is_the_one_that_fits_it() -> None:
    assert isinstance(Elsewhere(), RemoteTagger)
    assert not isinstance(ByLevel(always()), RemoteTagger)
    assert isinstance(queue_for(Elsewhere()), WindowFlow)
    assert isinstance(queue_for(ByLevel(always())), WindowQueue)


def test_one_answer_makes_room_for_one_window() -> None:
    tagger = Elsewhere()
    flow, source = WindowFlow(tagger), SourceTags("mixture", tagger, RATE)
    levels = [0.1 + 0.01 * number for number in range(10)]
    thread = threading.Thread(target=lambda: flow.add(source, windows_of(source, *levels)))
    thread.start()
    most = AHEAD * tagger.batch
    for answered in range(10):
        assert tagger.wait_for(min(most + answered, 10))
        assert len(tagger.asked) <= most + answered, "more windows are asked than there is room for"
        tagger.answer(answered)
    thread.join(LONG_S)
    assert not thread.is_alive()
    finish(flow)
    assert source.waiting == 0 and source.error is None
    assert labels(source) == [(3 * RATE * n, f"{each:.4f}") for n, each in enumerate(levels)]


@given(order=st.permutations(range(8)), split=st.integers(0, 8))
def test_whatever_the_order_of_the_answers_each_is_given_to_its_window(order: list[int], split: int) -> None:
    tagger = Elsewhere(batch=8)
    flow = WindowFlow(tagger)
    sources = [SourceTags(name, tagger, RATE) for name in ("vocals", "drums")]
    levels = [0.1 + 0.1 * number for number in range(8)]
    for source, part in zip(sources, (levels[:split], levels[split:]), strict=True):
        flow.add(source, windows_of(source, *part) if part else [])
    for number in order:
        tagger.answer(number)
    finish(flow)
    for source, part in zip(sources, (levels[:split], levels[split:]), strict=True):
        assert labels(source) == [(3 * RATE * n, f"{each:.4f}") for n, each in enumerate(part)]
        assert source.waiting == 0


def test_an_error_is_that_of_its_source_and_its_other_windows_are_given_up() -> None:
    tagger = Elsewhere(batch=8)
    flow = WindowFlow(tagger)
    good, bad = SourceTags("vocals", tagger, RATE), SourceTags("drums", tagger, RATE)
    flow.add(bad, windows_of(bad, LOUD, LOUD, LOUD))
    flow.add(good, windows_of(good, LOUD, LOUD))
    tagger.asked[1][0].set_exception(OSError("gone"))
    assert flow.collect(wait=True)
    flow.collect(wait=False)
    assert [future.cancelled() for future, _ in tagger.asked] == [True, False, True, False, False]
    for number in (3, 4):
        tagger.answer(number)
    finish(flow)
    assert isinstance(bad.error, OSError) and bad.tagged == [] and bad.waiting == 0
    assert good.error is None and len(good.tagged) == 2 and good.waiting == 0


def test_nothing_more_is_asked_for_a_source_that_has_failed() -> None:
    tagger = Elsewhere(batch=8)
    flow, source = WindowFlow(tagger), SourceTags("mixture", tagger, RATE)
    source.error = OSError("gone")
    flow.add(source, windows_of(source, LOUD, LOUD))
    assert tagger.asked == [] and source.waiting == 0


def test_a_stop_ends_every_wait_and_no_window_counts_as_done() -> None:
    stopped = threading.Event()
    tagger = Elsewhere(batch=1)
    flow, source = WindowFlow(tagger, stopped.is_set), SourceTags("mixture", tagger, RATE)
    thread = threading.Thread(target=lambda: flow.add(source, windows_of(source, *[LOUD] * 6)))
    thread.start()
    assert tagger.wait_for(AHEAD)
    stopped.set()
    thread.join(LONG_S)
    assert not thread.is_alive()
    finish(flow)
    assert (source.waiting, source.tagged) == (6, [])
    flow.close()
    assert all(future.cancelled() for future, _ in tagger.asked)


def test_collecting_without_waiting_takes_what_is_there() -> None:
    tagger = Elsewhere(batch=4)
    flow, source = WindowFlow(tagger), SourceTags("mixture", tagger, RATE)
    flow.add(source, windows_of(source, LOUD, LOUD))
    assert not flow.collect(wait=False)
    tagger.answer(1)
    assert flow.collect(wait=False)
    assert (source.waiting, len(source.tagged)) == (1, 1)
