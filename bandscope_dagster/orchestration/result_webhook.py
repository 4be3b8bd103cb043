"""Posts the result of every song to a webhook, at least once, in the form of the Standard Webhooks specification.

The sender reads Dagster's event log after a cursor that is stored in Dagster's records. Its state after each post has
all results up to the cursor as delivered or waiting. So a sender can be killed at any point, and the daemon and
`bandscope run` take turns. https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import fcntl
import hashlib
import hmac
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Final, Self
from urllib.error import HTTPError

import dagster as dg
from pydantic import TypeAdapter

from bandscope_dagster.errors import SettingsError, counted
from bandscope_dagster.orchestration.finished_songs import Finished, FinishedSongs, newest
from bandscope_dagster.orchestration.posts import check_url, post
from bandscope_dagster.orchestration.result_cursor import Cursor, CursorError
from bandscope_dagster.orchestration.song_results import result_of
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.registry import present_from

STATE_KEY: Final = "bandscope/result-webhook"  # in Dagster's records
LOCK_NAME: Final = "bandscope-result-webhook.lock"

TIMEOUT_S: Final = 10.0  # of one post
FIRST_WAIT_S: Final = 5.0  # after a result's first failed post; doubles each time
LONGEST_WAIT_S: Final = 300.0
GIVE_UP_S: Final = 72 * 3600.0  # after a result's first post
FAILED_IN_A_ROW: Final = 3  # posts; then the receiver is probably down, and this round ends
WAITING: Final = 100  # results at most; while there are so many, the next ones wait in the event log

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = (24, 64)  # by the specification


@dataclass(frozen=True, slots=True)
class Waiting:
    """A result whose posts have failed."""

    song: Finished
    posts: int
    since: float  # of the first post (seconds since 1970)
    due: float  # of the next one
    error: str = ""  # of the last one

    @property
    def is_given_up(self) -> bool:
        """True if one more failed post is the last."""
        return time.time() - self.since > GIVE_UP_S


@dataclass(frozen=True, slots=True)
class State:
    """The results up to ``cursor`` are delivered, except for those that wait."""

    cursor: str
    waiting: tuple[Waiting, ...] = ()

    def after(self, tried: Waiting, error: str | None) -> Self:
        """The state after one more post of a result."""
        others = tuple(each for each in self.waiting if each.song != tried.song)
        cursor = self.cursor if tried.posts else tried.song.cursor
        if error is None or tried.is_given_up:
            return replace(self, cursor=cursor, waiting=others)
        due = time.time() + min(FIRST_WAIT_S * 2**tried.posts, LONGEST_WAIT_S)
        again = replace(tried, posts=tried.posts + 1, due=due, error=error)
        return replace(self, cursor=cursor, waiting=(*others, again))


_STATE: Final = TypeAdapter(State)


@dataclass(frozen=True, slots=True)
class Receiver:
    """The receiver of the settings."""

    url: str = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """The receiver; None if the settings have none.

        Raises:
            SettingsError: the URL or the secret cannot be used. The message has neither.
        """
        if settings.result_webhook is None:
            return None
        url = settings.result_webhook.get_secret_value()
        check_url(url, "BANDSCOPE_RESULT_WEBHOOK")
        secret = settings.result_webhook_secret
        try:
            text = secret.get_secret_value() if secret else ""
            key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        low, high = SECRET_BYTES
        if not low <= len(key) <= high:
            raise SettingsError(
                f"BANDSCOPE_RESULT_WEBHOOK_SECRET must be {SECRET_PREFIX} and {low} to {high} random bytes in base64:"
                f' echo "{SECRET_PREFIX}$(openssl rand -base64 32)"; give the same to the receiver'
            )
        return cls(url, key)

    def post(self, message_id: str, body: bytes) -> None:
        """Post a message once.

        Raises:
            OSError: the receiver could not be reached, or did not answer with success.
        """
        timestamp = str(int(time.time()))
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(self.key, message_id, timestamp, body),
        }
        try:
            post(self.url, body, headers, TIMEOUT_S)
        except HTTPError as error:
            if error.code not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise
            raise OSError(f"{error}: is BANDSCOPE_RESULT_WEBHOOK_SECRET that of the receiver?") from None


def signature(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    """The header ``webhook-signature``: HMAC-SHA256 over id, timestamp and body."""
    signed = b".".join([message_id.encode(), timestamp.encode(), body])
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


@dataclass(frozen=True, slots=True)
class Sent:
    """The outcome of a round."""

    delivered: int
    waiting: int  # results whose posts have failed
    complete: bool  # no result is left in the event log
    error: str | None  # of the last failed post, perhaps of an earlier round
    lost: tuple[str, ...]  # sentences about results that are never delivered

    @property
    def text(self) -> str:
        """The outcome in a sentence."""
        sentence = f"{counted(self.delivered, 'result')} delivered"
        if self.waiting or not self.complete:
            more = f"{self.waiting} or more" if not self.complete else str(self.waiting)
            sentence += f"; to deliver: {more}"
        return sentence + (f"; last error: {self.error}" if self.error else "")


class ResultSender:
    """Posts results, in rounds."""

    def __init__(
        self, receiver: Receiver, instance: dg.DagsterInstance, store: ObjectStore, settings: Settings
    ) -> None:
        self._receiver = receiver
        self._instance = instance
        self._store = store
        self._rule = present_from(settings.present_from, settings.audible_db)

    def begin(self) -> State:
        """The stored state. A home that has sent no results yet begins with the next one."""
        values = self._instance.daemon_cursor_storage.get_cursor_values({STATE_KEY})
        if STATE_KEY in values:
            return _STATE.validate_json(values[STATE_KEY])
        return self._save(State(str(newest(self._instance))))

    def send(self, for_s: float) -> Sent | None:
        """Post what is due, for about this time; None if another process does it now."""
        with only_sender(Path(self._instance.root_directory)) as is_only:
            return self._send(time.monotonic() + for_s) if is_only else None

    def _send(self, until: float) -> Sent:
        state, lost = self.begin(), list[str]()
        try:
            reader = FinishedSongs(self._instance, Cursor.parse(state.cursor))
        except CursorError as error:
            lost.append(f"{error} Results are sent from now on.")
            state = self._save(replace(state, cursor=str(newest(self._instance))))
            reader = FinishedSongs(self._instance, Cursor.parse(state.cursor))
        delivered, failed_in_a_row, last_error, complete = 0, 0, None, True
        for each in _due(state, reader):
            is_full = each.posts == 0 and len(state.waiting) >= WAITING
            if is_full or failed_in_a_row == FAILED_IN_A_ROW or time.monotonic() > until:
                complete = False
                break
            error = self._post(each.song)
            delivered += error is None
            failed_in_a_row = 0 if error is None else failed_in_a_row + 1
            last_error = error or last_error
            state = self._save(state.after(each, error))
            if error is not None and all(other.song != each.song for other in state.waiting):
                lost.append(
                    f"{each.song.song_id}: the result of run {each.song.run_id} is given up after {each.posts + 1}"
                    f" posts: {error}"
                )
        if complete and str(reader.cursor) != state.cursor:  # other events, which need not be read again
            state = self._save(replace(state, cursor=str(reader.cursor)))
        if last_error is None and state.waiting:
            last_error = state.waiting[-1].error
        return Sent(delivered, len(state.waiting), complete, last_error, tuple(lost))

    def _post(self, song: Finished) -> str | None:
        """Post a result once; returns the error, if any."""
        try:
            body = result_of(self._store, song, self._rule).to_json().encode()
            self._receiver.post(f"{song.run_id}_{song.song_id}", body)
        except OSError as error:
            return str(error)
        return None

    def _save(self, state: State) -> State:
        self._instance.daemon_cursor_storage.set_cursor_values({STATE_KEY: _STATE.dump_json(state).decode()})
        return state


def _due(state: State, reader: FinishedSongs) -> Iterator[Waiting]:
    """The results to post now: those that have waited long enough, and then the new ones."""
    yield from (each for each in state.waiting if each.due <= time.time())
    for song in reader.new():
        yield Waiting(song, 0, time.time(), time.time())


@contextmanager
def only_sender(home: Path) -> Generator[bool]:
    """True while this process holds the lock of the home's senders, so that no result is sent twice."""
    try:
        lock = (home / LOCK_NAME).open("w")
    except OSError:  # a home that this user may not write: that of a deployment, with one daemon
        yield True
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
