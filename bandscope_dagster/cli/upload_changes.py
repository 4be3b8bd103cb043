"""Tells ``bandscope run --watch`` that uploads may have changed: at once in a local folder, else after an interval."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from bandscope_dagster.pipeline.uploads import UPLOADS
from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.objects.protocol import ObjectStore

logger = logging.getLogger(__name__)

TOGETHER_MS: Final = 50  # changes that follow each other so closely count as one
AT_LATEST_MS: Final = 300  # from a change until the call, also if others follow
AGAIN_AFTER_S: Final = 5.0  # after the folder could not be watched

LOCAL_LOOK_EVERY_S: Final = 15.0
"""Also without events: a network disk has none for files that other machines write."""


def has_events(store: ObjectStore) -> bool:
    """True if the store is a folder of this machine."""
    return isinstance(store, LocalStore)


@contextmanager
def watched(store: ObjectStore, on_change: Callable[[], object]) -> Generator[None]:
    """Call ``on_change`` in a thread after every change below ``uploads/`` during the block; never for S3."""
    if not has_events(store):
        yield
        return
    stopped = Event()
    folder = Path(store.uri(UPLOADS))
    thread = Thread(target=_watch, args=(folder, on_change, stopped), name="watch-uploads", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _watch(folder: Path, on_change: Callable[[], object], stopped: Event) -> None:
    import watchfiles

    told = False
    while not stopped.is_set():
        try:
            folder.mkdir(exist_ok=True)
            changes = watchfiles.watch(
                folder,
                watch_filter=None,
                debounce=AT_LATEST_MS,
                step=TOGETHER_MS,
                stop_event=stopped,
                raise_interrupt=False,
                ignore_permission_denied=True,
            )
            on_change()  # what came before the folder was watched
            for _ in changes:
                on_change()
        except OSError as error:  # the disk is gone, or the system allows no further watches
            if not told:
                logger.warning("%s cannot be watched, and is listed instead: %s", folder, error)
                told = True
        stopped.wait(AGAIN_AFTER_S)
