"""Background threads: order, limits, errors, and the end of threads."""

import threading
import time

import pytest

from bandscope_dagster.pipeline.background import WriteBehind, prefetch


def test_prefetch_yields_everything_in_order() -> None:
    assert list(prefetch(range(100), depth=3)) == list(range(100))


def test_prefetch_runs_ahead_by_its_depth_and_no_further() -> None:
    produced: list[int] = []

    def items():
        for number in range(50):
            produced.append(number)
            yield number

    stream = prefetch(items(), depth=4)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(produced) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert len(produced) == 6  # one taken, four queued, one ready
    stream.close()


def test_an_error_of_the_producer_arrives_after_the_items_before_it() -> None:
    def items():
        yield 1
        raise OSError("the disk is gone")

    stream = prefetch(items(), depth=2)
    assert next(stream) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)


def test_a_consumer_that_stops_early_ends_the_thread_and_closes_the_producer() -> None:
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    stream = prefetch(items(), depth=1)
    next(stream)
    stream.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_write_behind_keeps_the_order_and_reports_each_tasks_result() -> None:
    done: list[int] = []
    with WriteBehind[int](depth=2) as writer:
        futures = [writer.submit(lambda n=n: done.append(n) or n * n) for n in range(20)]
    assert done == list(range(20))
    assert [future.result() for future in futures] == [n * n for n in range(20)]


def test_write_behind_blocks_while_its_queue_is_full() -> None:
    gate = threading.Event()
    submitted: list[int] = []
    with WriteBehind[bool](depth=2) as writer:

        def fill() -> None:
            for number in range(4):
                writer.submit(gate.wait)
                submitted.append(number)

        filler = threading.Thread(target=fill)
        filler.start()
        time.sleep(0.3)
        assert submitted == [0, 1]
        gate.set()
        filler.join()
    assert submitted == [0, 1, 2, 3]


def test_a_failing_task_fails_alone() -> None:
    with WriteBehind[int](depth=4) as writer:
        bad = writer.submit(lambda: 1 // 0)
        good = writer.submit(lambda: 7)
    assert isinstance(bad.exception(), ZeroDivisionError)
    assert good.result() == 7
