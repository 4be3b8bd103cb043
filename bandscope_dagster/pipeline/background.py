"""Background threads: ``prefetch`` produces items ahead of a consumer, ``WriteBehind`` runs tasks behind a producer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

POLL_S = 0.1  # interval at which a blocked producer checks if its consumer has stopped


class _End:
    """The last entry in the queue: the end of the items, or the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Iterable[Item], depth: int, stopped: threading.Event | None = None) -> Iterator[Item]:
    """Yield ``items`` in order while a thread produces up to ``depth`` of them ahead.

    An error of the producer is raised here, after the items before it. If the consumer stops early, the thread ends
    before this generator returns: ``stopped`` is set then, and a producer of slow items should check it.
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
    """Runs tasks one after another in one thread, with at most ``depth`` tasks queued or running.

    ``submit`` blocks while the queue is full: this bounds the memory if storage is slower than the model.
    """

    def __init__(self, depth: int) -> None:
        self._slots = threading.BoundedSemaphore(depth)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-behind")

    def submit(self, task: Callable[[], Result]) -> Future[Result]:
        """Queue ``task``; the returned future has its result or its error."""
        self._slots.acquire()
        future = self._thread.submit(task)
        future.add_done_callback(lambda _: self._slots.release())
        return future

    def __enter__(self) -> WriteBehind[Result]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)
