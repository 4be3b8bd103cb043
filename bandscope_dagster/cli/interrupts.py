"""Ctrl-C during a run: it is answered at once, and ends the command without a traceback."""

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console

from bandscope_dagster.errors import BandscopeError

# A run looks for it after each block of 10 s of a song, in which a separator has a few segments.
STOPPING: Final = (
    "Stopping after the current segments, minutes if the separator is slow; finished songs are kept …"
)


class Interrupted(BandscopeError):
    """The command was stopped by Ctrl-C; its text says what is kept."""

    def __init__(self) -> None:
        super().__init__("interrupted; finished songs are kept, and `bandscope run` continues with the rest")


@contextmanager
def answered_interrupt(console: Console) -> Generator[None]:
    """Print ``STOPPING`` when Ctrl-C is pressed during the block, and turn the interrupt into ``Interrupted``.

    In the main thread the signal is blocked, and so it is in every process that the block starts: a terminal sends
    Ctrl-C to all of them, and the helpers that Dagster starts for the log of a step would print tracebacks. A thread
    takes it, prints, and wakes the main thread, which runs the handler: Python's own, or during a step Dagster's.
    Call this in the main thread; elsewhere it does nothing.

    Raises:
        Interrupted: Ctrl-C was pressed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main = threading.get_ident()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)

    def answer() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while signals := os.read(woken, 1):
            if signal.SIGINT in signals:
                console.print(STOPPING, highlight=False)
                # It may wait for a lock, which only a signal interrupts.
                signal.pthread_kill(main, signal.SIGURG)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGURG, _nothing)  # without a handler, the signal would interrupt nothing
    # The pipe gets the number of every signal at once.
    descriptor = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    thread = threading.Thread(target=answer, name="answer-interrupts", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None
    finally:
        signal.set_wakeup_fd(descriptor)
        os.close(waker)
        thread.join()
        os.close(woken)
        signal.signal(signal.SIGURG, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _nothing(number: int, frame: object) -> None:
    """The handler of a signal that only wakes."""
