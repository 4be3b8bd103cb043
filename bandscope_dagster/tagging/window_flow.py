"""Ask a remote tagger about the windows of several sources and songs, and collect its answers as they come.

A batch that is answered as a whole, as in ``window_queue.py``, would wait for its slowest window while the server's
other places are empty. Here each answer makes room for the next window.
"""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from bandscope_dagster.tagging.protocol import AnyTagger, Heard, RemoteTagger
from bandscope_dagster.tagging.source_tags import SourceTags, TaggedWindow
from bandscope_dagster.tagging.window_queue import WindowQueue
from bandscope_dagster.tagging.windows import Window

AHEAD: Final = 2
"""Windows with the tagger, as a multiple of those that it asks at once.

The second half waits there for a place, so that all places are taken again at once if many answers come together, and
while this thread separates or decodes. It costs memory: a window of 30 s has 1 MB.
"""
LOOK_EVERY_S: Final = 0.2  # interval at which a wait for an answer checks if it shall end

_Place = tuple[
    SourceTags, int, int, float
]  # source, start_frame, frames, level_dbfs of a window that is asked


class WindowFlow:
    """Passes windows on to the tagger, and gives each answer to the window's source.

    ``add`` blocks while ``AHEAD`` times the tagger's ``batch`` are asked, which bounds the memory. An error belongs to
    the source of its window alone; the source's other windows are no longer asked.
    """

    def __init__(self, tagger: RemoteTagger, stopped: Callable[[], bool] = lambda: False) -> None:
        """Once ``stopped`` is true, nothing waits any more. Windows that were not asked about then stay counted as
        waiting, so that no song is stored without them."""
        self.tagger = tagger
        self.batch = tagger.batch
        self._stopped = stopped
        self._asked: dict[Future[Heard], _Place] = {}
        self._ended = queue.SimpleQueue[Future[Heard]]()  # filled by the tagger's thread

    def add(self, source: SourceTags, windows: list[Window]) -> None:
        """Ask about windows of ``source``, as soon as there is room."""
        source.waiting += len(windows)
        for window in windows:
            while len(self._asked) >= AHEAD * self.batch and not self._stopped():
                self._take(wait=True)
            if self._stopped():
                return
            if source.error is not None:
                source.waiting -= 1
                continue
            future = self.tagger.ask(window.samples)
            self._asked[future] = (source, window.start_frame, window.frames, window.level_dbfs)
            future.add_done_callback(self._ended.put)

    def collect(self, *, wait: bool) -> bool:
        """Take the answers that have come; with ``wait``, at least one. False if none is there or will come."""
        for future, (source, *_) in list(self._asked.items()):
            if source.error is not None:
                future.cancel()
        taken = self._take(wait=False)
        while wait and not taken and self._asked and not self._stopped():
            taken = self._take(wait=True)
        return taken

    def close(self) -> None:
        """Give up all windows without an answer."""
        for future in self._asked:
            future.cancel()
        self._asked.clear()

    def _take(self, *, wait: bool) -> bool:
        """Take all answers that are there; with ``wait``, give the first one some time to come."""
        taken = False
        while True:
            try:
                future = self._ended.get(block=wait and not taken, timeout=LOOK_EVERY_S)
            except queue.Empty:
                return taken
            taken = True
            place = self._asked.pop(future, None)
            if place is not None:
                _give(future, *place)


def _give(
    future: Future[Heard], source: SourceTags, start_frame: int, frames: int, level_dbfs: float
) -> None:
    """Give an answer, or the error in its place, to the source of its window."""
    source.waiting -= 1
    if future.cancelled():
        return
    error = future.exception()
    if error is None:
        source.tagged.append(TaggedWindow(start_frame, frames, future.result(), level_dbfs))
    elif source.error is None:
        source.error = error if isinstance(error, Exception) else RuntimeError(str(error))


def queue_for(tagger: AnyTagger, stopped: Callable[[], bool] = lambda: False) -> WindowQueue | WindowFlow:
    """The queue of windows that fits the tagger."""
    return WindowFlow(tagger, stopped) if isinstance(tagger, RemoteTagger) else WindowQueue(tagger)
