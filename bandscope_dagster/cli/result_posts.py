"""Posts results to the webhook while a command computes songs, for homes without a daemon."""

import signal
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import lasting_console, one_line
from bandscope_dagster.orchestration.home import open_records
from bandscope_dagster.orchestration.result_webhook import Receiver, ResultSender, Sent
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore

LOOK_EVERY_S: Final = 1.0
ROUND_S: Final = 5.0
AT_THE_END_S: Final = 20.0  # for the results that are left when the songs are done
ENDING_S: Final = 2.0  # for the last posts, if the command was stopped
LATER: Final = "They wait in Dagster's records for the next `bandscope run`, or for the daemon."


@contextmanager
def results_posted(
    settings: Settings, store: ObjectStore, console: Console, *, stays: bool = False
) -> Generator[Console]:
    """Post the results of the block, and those of earlier commands that were killed; the songs never wait for it.

    What cannot be delivered by the end waits for the next command, or for the daemon. Without a webhook in the settings
    it does nothing. The block of a command that ``stays`` ends only when it is stopped: its posts then have
    ``ENDING_S``, and what goes wrong is printed at once. Such a block draws on the console that it gets from here.

    Raises:
        SettingsError: the webhook's URL or secret cannot be used.
    """
    receiver = Receiver.of(settings)
    if receiver is None:
        yield console
        return
    with open_records() as instance, lasting_console(console) as console:
        sender = ResultSender(receiver, instance, store, settings)
        sender.begin()
        posting = _Posting(sender, console, at_once=stays)
        try:
            yield console
        except BaseException:  # such as Ctrl-C: the command ends at once, and the next one posts the rest
            posting.stop(ENDING_S)
            raise
        posting.stop(ENDING_S if stays else None)
        if not stays:
            _post_rest(sender, console)


class _Posting:
    """The thread that posts, and what it has to say.

    Without ``at_once`` it prints only lost results, and at the end: Dagster redirects the output during a step, and
    errors may pass.
    """

    def __init__(self, sender: ResultSender, console: Console, *, at_once: bool) -> None:
        self._sender, self._console, self._at_once = sender, console, at_once
        self._told: set[str] = set()  # errors, until all is delivered again
        self._lost: list[str] = []  # to print at the end
        self._is_over, self._is_stopped = threading.Event(), False
        self._printing, self._may_print = threading.Lock(), True
        self._thread = threading.Thread(target=self._post, name="post-results", daemon=True)
        self._thread.start()

    def stop(self, within_s: float | None) -> None:
        """End the thread after a last round, or leave it alone after ``within_s``; None: after the current round."""
        self._is_stopped = within_s is not None
        self._is_over.set()
        self._thread.join(within_s)
        with self._printing:
            self._may_print = False
            for line in self._lost:
                _print(self._console, line)

    def _post(self) -> None:
        # Ctrl-C belongs to the main thread.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while not self._is_over.wait(LOOK_EVERY_S):
            self._round(ROUND_S)
        if self._is_stopped:
            self._round(ENDING_S)

    def _round(self, for_s: float) -> None:
        try:
            sent = self._sender.send(for_s)
        except Exception as error:  # also an unexpected one: results are posted as long as songs are computed
            self._say_once(_words(error), f"Results could not be posted: {_words(error)}. It is tried again.")
            return
        if sent is not None:
            self._take(sent)

    def _take(self, sent: Sent) -> None:
        for line in sent.lost:
            self._say_lost(line)
        if sent.error is not None:
            self._say_once(
                sent.error, f"Results to the webhook: {sent.text}. Failed posts are repeated after waits."
            )
        elif not sent.waiting:
            self._told.clear()

    def _say_once(self, error: str, line: str) -> None:
        with self._printing:
            if self._at_once and self._may_print and error not in self._told:
                self._told.add(error)
                _print(self._console, line)

    def _say_lost(self, line: str) -> None:
        with self._printing:
            if not self._may_print:
                return
            if self._at_once:
                _print(self._console, line)
            else:
                self._lost.append(line)


def _post_rest(sender: ResultSender, console: Console) -> None:
    """Post what is left, and print what could not be delivered."""
    until = time.monotonic() + AT_THE_END_S
    while True:
        try:
            sent = sender.send(max(until - time.monotonic(), 0.0))
        except Exception as error:  # whatever it is, the songs are done
            _print(console, f"Results could not be posted: {_words(error)}. {LATER}")
            return
        for line in sent.lost if sent is not None else ():
            _print(console, line)
        if sent is None or (sent.complete and not sent.waiting):
            return
        if time.monotonic() > until:
            _print(console, f"Results to the webhook: {sent.text}. {LATER}")
            return
        time.sleep(LOOK_EVERY_S)


def _words(error: Exception) -> str:
    """The message, with the class unless the message alone says enough."""
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _print(console: Console, text: str) -> None:
    console.print(f"[yellow]{escape(one_line(text))}[/yellow]", highlight=False, soft_wrap=True)
