"""Requests to a server with OpenAI's interface of chat completions: many at once, from one thread, with retries.

Errors that may pass (429, 5xx, broken connections, an answer that is not a completion) are tried again for a while; all
others are refusals. Answers are read up to a limit.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import random
import threading
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future, wait
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bandscope_dagster.errors import BandscopeError, ServerRefused, ServerUnavailable
from bandscope_dagster.tagging.answers.labels import plain_text
from bandscope_dagster.tagging.options import ServerOptions
from bandscope_dagster.tagging.server_answers import EXCERPT, message_of, pause_s_of, text_of

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Headers

T = TypeVar("T")

logger = logging.getLogger(__name__)

CONNECT_S: Final = 10.0
PATIENCE_S: Final = 120.0  # from the first failure on: time for a server to be restarted
BUSY_PATIENCE_S: Final = 600.0  # the same while it answers that it has too many requests
FIRST_WAIT_S: Final = 0.5  # doubles with each try
LONGEST_WAIT_S: Final = 15.0
GET_S: Final = 10.0  # for the answer to a GET, which needs no model
LOOK_EVERY_S: Final = 0.2  # interval at which a wait for an answer checks if it shall end
MOST_BYTES: Final = 2**20  # of a list of models
MOST_BYTES_OF_COMPLETION: Final = 2**16  # 512 tokens have about 3 kB

TOO_MANY: Final = 429
MAY_PASS: Final = frozenset({408, 425, TOO_MANY, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529})
"""Statuses that the same request may not have a little later; those above 504 are of proxies and of busy services."""
NOT_FOUND: Final = 404
"""Passes only if the server has completed chats before: gateways answer it while the server behind them is away."""
UNTRUSTED: Final = "CERTIFICATE_VERIFY_FAILED"  # in the text of OpenSSL's error

_REMEDIES: Final = {
    301: "set BANDSCOPE_TAGGER_URL to the address that it redirects to",
    302: "set BANDSCOPE_TAGGER_URL to the address that it redirects to",
    401: "set BANDSCOPE_TAGGER_KEY to a key that it accepts",
    403: "set BANDSCOPE_TAGGER_KEY to a key that it accepts",
    404: "correct BANDSCOPE_TAGGER_URL, which must end with /v1 for vLLM, or BANDSCOPE_TAGGER_MODEL",
    413: "shorten the windows (BANDSCOPE_TAG_WINDOW_S), or raise the limit of the server or of the proxy before it",
}


class AnswerTooLong(BandscopeError):
    """The server sent more than ``MOST_BYTES``, or ``MOST_BYTES_OF_COMPLETION``."""


class _Trouble(Exception):
    """One try has failed, and another may succeed."""

    def __init__(self, problem: str, *, busy: bool = False, late: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(problem)
        self.busy = busy  # True: the server works, and has too many requests
        self.late = late  # True: there was no answer in time
        self.pause_s = pause_s  # that the server asks for


_chat_server_lock: Final = threading.Lock()


def chat_server(options: ServerOptions) -> ChatServer:
    """The process's one client of a server: all runs share its connections and its places."""
    with _chat_server_lock:  # `cache` alone lets two threads make two clients
        return _chat_server(options)


@cache
def _chat_server(options: ServerOptions) -> ChatServer:
    return ChatServer(options)


class ChatServer:
    """A client of a server. Its coroutines run in a thread of its own, which ``start`` gives them to."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.places = asyncio.Semaphore(options.requests)  # for conversations that are under way
        self.takes_schemas: dict[Hashable, bool] = {}  # what it was asked → its answer
        self._loop = asyncio.new_event_loop()
        self._down_since: float | None = None  # on the loop's clock; None while the server answers
        self._last_trouble = 0.0  # on the loop's clock
        self._answered_at = -math.inf  # likewise, the last time
        self._has_completed = False
        threading.Thread(target=self._loop.run_forever, name="tagger-server", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the thread of the client; returns its future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def result(self, work: Coroutine[Any, Any, T], stopped: Callable[[], bool] = lambda: False) -> T:
        """Wait for the result of a coroutine in the thread of the client.

        Raises:
            KeyboardInterrupt: ``stopped`` became true; the coroutine is given up.
        """
        future = self.start(work)
        try:
            while not wait([future], LOOK_EVERY_S).done:
                if stopped():
                    raise KeyboardInterrupt
            return future.result()
        finally:
            future.cancel()

    async def get(self, path: str, read: Callable[[bytes], T], patience_s: float | None = None) -> T:
        """Read the document at ``path`` below the URL by ``read``; see ``request``."""
        return await self.request("GET", path, None, read, patience_s)

    async def complete(self, body: bytes, patience_s: float | None = None) -> str:
        """The text of a chat completion, which may be empty, for a request as JSON; see ``request``."""
        text = await self.request("POST", "/chat/completions", body, text_of, patience_s)
        self._has_completed = True
        return text

    async def request(
        self, method: str, path: str, body: bytes | None, read: Callable[[bytes], T], patience_s: float | None
    ) -> T:
        """The answer to a request, as ``read`` makes it of the bytes. Failed tries are repeated for ``patience_s``.

        By default, for ``PATIENCE_S`` since the server's last answer to any request, or ``BUSY_PATIENCE_S`` if it says
        that it is busy. A late answer is asked for once more, or not at all if the server has already answered nothing
        for a while: it hangs.
        A path that begins with "//" is beside the interface's ``/v1``, not below it.

        Raises:
            ServerUnavailable: it failed for the whole time.
            ServerRefused: the server refuses it.
            AnswerTooLong: the answer has no end, or a late one.
        """
        first = None
        tries = 0
        while True:
            began = self._loop.time()
            try:
                found = await self._try(method, path, body, read)
                self._down_since = None
                self._answered_at = self._loop.time()
                return found
            except _Trouble as trouble:
                tries += 1
                now = self._loop.time()
                first = now if first is None else first
                if patience_s is not None:
                    failing_s = now - first
                    left_s = patience_s - failing_s
                else:
                    was_down = self._down_since is not None and self._down_since < began
                    failing_s = now - min(first, self._down(now, trouble))
                    hangs = trouble.late and was_down and self._answered_at < began
                    left_s = 0.0 if hangs else (BUSY_PATIENCE_S if trouble.busy else PATIENCE_S) - failing_s
                wait_s = min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S) * random.uniform(0.75, 1.25)
                wait_s = max(wait_s, trouble.pause_s)
                if wait_s > left_s:
                    raise self._unavailable(trouble, tries, failing_s) from None
                if patience_s is not None and tries == 1:
                    problem = self.options.masked(str(trouble))
                    logger.warning("%s %s. Waiting for it, up to %.0f s.", self._named, problem, patience_s)
                await asyncio.sleep(wait_s)

    async def _try(self, method: str, path: str, body: bytes | None, read: Callable[[bytes], T]) -> T:
        """One try. Raises _Trouble, ServerRefused and AnswerTooLong."""
        import httpx2

        timeout_s = min(GET_S, self.options.timeout_s) if method == "GET" else self.options.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                status, headers, content = await self._exchange(method, self._url(path), body)
        except TimeoutError:
            raise _Trouble(f"has not answered within {timeout_s:g} s", late=True) from None
        except (ImportError, ValueError) as error:
            raise self._refused(f"cannot be asked by the proxy that the environment names: {error}") from None
        except (httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
            raise self._refused(
                f"cannot be sent such a request; correct BANDSCOPE_TAGGER_URL or BANDSCOPE_TAGGER_KEY ({error})"
            ) from None
        except (httpx2.RequestError, OSError) as error:
            if UNTRUSTED in str(error):
                raise self._refused(
                    "has a certificate that is not trusted; set SSL_CERT_FILE to a file with the certificate of your "
                    f"authority ({error})"
                ) from None
            raise _Trouble(f"cannot be reached ({type(error).__name__}: {error or 'no message'})") from None
        if status in MAY_PASS or (status == NOT_FOUND and self._has_completed):
            said = f"answers with status {status}: {self._excerpt(content)}"
            pause_s = pause_s_of(headers.get("retry-after", ""))
            raise _Trouble(said, busy=status == TOO_MANY, pause_s=pause_s)
        if status != 200:
            remedy = _REMEDIES.get(status, "the same request will be refused again")
            raise self._refused(
                f"refuses the request with status {status}: {self._excerpt(content)}; {remedy}", status
            )
        try:
            return read(content)
        except (ValueError, LookupError, TypeError, RecursionError):
            raise _Trouble(
                f"answers, but not as a server of chat completions: {self._excerpt(content)}"
            ) from None

    async def _exchange(self, method: str, url: str, body: bytes | None) -> tuple[int, Headers, bytes]:
        content = bytearray()
        most = MOST_BYTES if method == "GET" else MOST_BYTES_OF_COMPLETION
        async with self._client.stream(method, url, content=body) as answer:
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > most and answer.status_code != 200:
                    break  # a long page with an error is an error like others
                if len(content) > most:
                    raise AnswerTooLong(f"the server sent more than {most:,} bytes in one answer")
        return answer.status_code, answer.headers, bytes(content)

    @cached_property
    def _client(self) -> AsyncClient:
        """The HTTP client. Loopback is never asked through a proxy of the environment."""
        import httpx2

        logging.getLogger("httpx2").setLevel(
            logging.WARNING
        )  # below, it logs every URL, also with a secret query
        key, basic = self.options.key, self.options.basic
        headers = {"User-Agent": "bandscope", "Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        elif basic is not None:
            headers["Authorization"] = f"Basic {basic}"
        return httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self.options.requests),
            verify=httpx2.create_ssl_context(),  # the system's certificates, or those of SSL_CERT_FILE
            trust_env=not _is_loopback(self.options.parts.hostname or ""),  # the proxies of the environment
        )

    def _url(self, path: str) -> str:
        parts = self.options.parts
        base = parts.path.rstrip("/")
        own = base.removesuffix("/v1") + path[1:] if path.startswith("//") else base + path
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], path=own, fragment="").geturl()

    def _down(self, now: float, trouble: _Trouble) -> float:
        """The time since which the server has answered nothing; ``now`` where it is merely busy.

        So if it is down, only the first requests wait for it, and all others fail after one try.
        """
        if trouble.busy:
            return now
        # A server that hangs shows it so rarely.
        rare_s = max(PATIENCE_S, self.options.timeout_s) + LONGEST_WAIT_S
        if self._down_since is None or now - self._last_trouble > rare_s:
            self._down_since = now
        self._last_trouble = now
        return self._down_since

    def _unavailable(self, trouble: _Trouble, tries: int, failing_s: float) -> ServerUnavailable:
        problem = self.options.masked(str(trouble))
        return ServerUnavailable(
            f"{self._named} {problem} ({tries} {'try' if tries == 1 else 'tries'}, failing for {failing_s:.0f} s). "
            f"Start it, or correct BANDSCOPE_TAGGER_URL; `bandscope doctor` examines it, and the next run computes "
            f"the song"
        )

    def _refused(self, problem: str, status: int | None = None) -> ServerRefused:
        return ServerRefused(f"{self._named} {self.options.masked(problem)}", status)

    @property
    def _named(self) -> str:
        return f"The server of the tagger, {self.options.shown},"

    def _excerpt(self, content: bytes) -> str:
        """The server's own message, shortened, without our secrets, which a cut could make unrecognizable."""
        text = self.options.masked(plain_text(message_of(content)))
        return repr(text[:EXCERPT]) if text else "no message"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
