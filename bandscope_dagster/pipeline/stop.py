"""A request to end all steps of this process soon, for steps that run in threads: only the main thread gets Ctrl-C."""

from threading import Event
from typing import Final

_REQUESTED: Final = Event()


def request_stop() -> None:
    """End the steps of this process: the model's current call is the last one, and finished songs are kept."""
    _REQUESTED.set()


def is_stopping() -> bool:
    """True once a stop is requested."""
    return _REQUESTED.is_set()


def check_stop() -> None:
    """Raise KeyboardInterrupt once a stop is requested, as Ctrl-C does in the main thread."""
    if _REQUESTED.is_set():
        raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Sleep for ``seconds``, or raise KeyboardInterrupt as soon as a stop is requested."""
    _REQUESTED.wait(seconds)
    check_stop()
