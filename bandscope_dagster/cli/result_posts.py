"""Posts results to the webhook while a command computes songs, for homes without a daemon."""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import dagster as dg
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.orchestration.home import make_records
from bandscope_dagster.orchestration.result_webhook import Receiver, ResultSender
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore

LOOK_EVERY_S: Final = 1.0
ROUND_S: Final = 5.0
AT_THE_END_S: Final = 20.0  # for the results that are left when the songs are done
ENDING_S: Final = 2.0  # for the post under way, if the command was stopped
LATER: Final = "They wait in Dagster's records for the next `bandscope run`, or for the daemon."


@contextmanager
def results_posted(settings: Settings, store: ObjectStore, home: Path, console: Console) -> Generator[None]:
    """Post the results of the block, and those of earlier commands that were killed; the songs never wait for it.

    What cannot be delivered by the end waits for the next command, or for the daemon. Without a webhook in the settings
    it does nothing.

    Raises:
        SettingsError: the webhook's URL or secret cannot be used.
    """
    receiver = Receiver.of(settings)
    make_records(home)
    if receiver is None:
        yield
        return
    with dg.DagsterInstance.get() as instance:
        sender = ResultSender(receiver, instance, store, settings)
        sender.begin()
        is_over = threading.Event()
        thread = threading.Thread(
            target=_post_until, args=(sender, is_over), name="post-results", daemon=True
        )
        thread.start()
        try:
            yield
        except BaseException:  # such as Ctrl-C: the command ends at once, and the next one posts the rest
            is_over.set()
            thread.join(ENDING_S)
            raise
        is_over.set()
        thread.join()
        _post_rest(sender, console)


def _post_until(sender: ResultSender, is_over: threading.Event) -> None:
    # Ctrl-C belongs to the main thread.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    while not is_over.wait(LOOK_EVERY_S):
        with suppress(OSError, SQLAlchemyError):  # the last round says it
            sender.send(ROUND_S)


def _post_rest(sender: ResultSender, console: Console) -> None:
    """Post what is left, and print what could not be delivered."""
    until = time.monotonic() + AT_THE_END_S
    while True:
        try:
            sent = sender.send(max(until - time.monotonic(), 0.0))
        except (OSError, SQLAlchemyError) as error:
            _print(console, f"Results could not be posted: {error}. {LATER}")
            return
        for line in sent.lost if sent is not None else ():
            _print(console, line)
        if sent is None or (sent.complete and not sent.waiting):
            return
        if time.monotonic() > until:
            _print(console, f"Results to the webhook: {sent.text}. {LATER}")
            return
        time.sleep(LOOK_EVERY_S)


def _print(console: Console, text: str) -> None:
    console.print(f"[yellow]{escape(one_line(text))}[/yellow]", highlight=False, soft_wrap=True)
