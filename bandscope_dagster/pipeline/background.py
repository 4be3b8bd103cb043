"""Work ahead and work behind: the threads that keep a model from waiting for input, for storage, for its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.1  # how often a blocked producer looks whether its consumer has gone


class _End:
    """What the producer puts last: the end of its items, or the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[Item], depth: int, stopped: threading.Event | None = None) -> Iterator[Item]:
    """Yield ``items`` in order while a thread produces up to ``depth`` of them ahead.

    An error of the producer is raised here, after the items before it. When the consumer stops early, the thread
    is ended before this generator returns. ``stopped`` is set then: a producer whose items take long looks at it.
    """
    ready: queue.Queue[Item | _End] = queue.Queue(depth)
    stopped = stopped or threading.Event()

    def put(item: Item | _End) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put(item):
                    break
        except BaseException as error:
            put(_End(error))
        else:
            put(_End(None))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stopped.set()
        thread.join()


class WriteBehind(Generic[Result]):
    """Runs tasks one after another in a thread of its own, with at most ``depth`` of them waiting.

    ``submit`` blocks while the queue is full, so that memory stays bounded when storage is slower than the model.
    """

    def __init__(self, depth: int) -> None:
        self._slots = threading.BoundedSemaphore(depth)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-behind")

    def submit(self, task: Callable[[], Result]) -> Future[Result]:
        """Queue ``task``; its result or its error is in the future that is returned."""
        self._slots.acquire()
        future = self._thread.submit(task)
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def __enter__(self) -> WriteBehind[Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=error is not None)
