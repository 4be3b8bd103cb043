"""Requests to a server with OpenAI's interface of chat completions: many at once, from one thread, with retries.

Errors that may pass (429, 5xx, broken connections, no answer in time, an answer that is none) are tried again for a
while; all others are refusals. Answers are read up to a limit.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

from bandscope_dagster.errors import BandscopeError, ServerRefused, ServerUnavailable
from bandscope_dagster.tagging.answers.labels import plain_text
from bandscope_dagster.tagging.options import ServerOptions

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Headers

T = TypeVar("T")

CONNECT_S: Final = 10.0
PATIENCE_S: Final = 120.0  # from the first failure on: time for a server to be restarted
BUSY_PATIENCE_S: Final = 600.0  # the same while it answers that it has too many requests
FIRST_WAIT_S: Final = 0.5  # doubles with each try
LONGEST_WAIT_S: Final = 15.0
MOST_BYTES: Final = 2**20  # of an answer; 512 tokens have about 3 kB
EXCERPT: Final = 300  # characters of a server's own message

TOO_MANY: Final = 429
MAY_PASS: Final = frozenset({408, 425, TOO_MANY, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529})
"""Statuses that the same request may not have a little later; those above 504 are of proxies and of busy services."""
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
    """The server sent more than ``MOST_BYTES``."""


class _Trouble(Exception):
    """One try has failed, and another may succeed."""

    def __init__(self, problem: str, *, busy: bool = False, pause_s: float = 0.0) -> None:
        super().__init__(problem)
        self.busy = busy  # True: the server works, and has too many requests
        self.pause_s = pause_s  # that the server asks for


@cache
def chat_server(options: ServerOptions) -> ChatServer:
    """The process's one client of a server: all runs share its connections and its places."""
    return ChatServer(options)


class ChatServer:
    """A client of a server. Its coroutines run in a thread of its own, which ``start`` gives them to."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.places = asyncio.Semaphore(options.requests)  # for conversations that are under way
        self._loop = asyncio.new_event_loop()
        self._down_since: float | None = None  # on the loop's clock; None while the server answers
        self._last_trouble = 0.0  # on the loop's clock
        threading.Thread(target=self._loop.run_forever, name="tagger-server", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the thread of the client; returns its future."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def get(self, path: str, read: Callable[[bytes], T], patience_s: float | None = None) -> T:
        """Read the document at ``path`` below the URL by ``read``; see ``request``."""
        return await self.request("GET", path, None, read, patience_s)

    async def complete(self, body: bytes, patience_s: float | None = None) -> str:
        """The text of a chat completion, which may be empty, for a request as JSON; see ``request``."""
        return await self.request("POST", "/chat/completions", body, _text_of, patience_s)

    async def request(
        self, method: str, path: str, body: bytes | None, read: Callable[[bytes], T], patience_s: float | None
    ) -> T:
        """The answer to a request, as ``read`` makes it of the bytes. Failed tries are repeated for ``patience_s``.

        Its default is ``PATIENCE_S``, or ``BUSY_PATIENCE_S`` for a server that answers that it is busy. A path that
        begins with "//" is beside the interface's ``/v1``, not below it.

        Raises:
            ServerUnavailable: it failed for the whole time.
            ServerRefused: the server refuses it.
            AnswerTooLong: the answer has no end, or a late one.
        """
        first = None
        tries = 0
        while True:
            try:
                found = await self._try(method, path, body, read)
                self._down_since = None
                return found
            except _Trouble as trouble:
                tries += 1
                now = self._loop.time()
                first = now if first is None else first
                failing_s = now - min(first, self._down(now, trouble))
                usual_s = BUSY_PATIENCE_S if trouble.busy else PATIENCE_S
                left_s = (usual_s if patience_s is None else patience_s) - failing_s
                wait_s = min(FIRST_WAIT_S * 2 ** (tries - 1), LONGEST_WAIT_S) * random.uniform(0.75, 1.25)
                wait_s = max(wait_s, trouble.pause_s)
                if wait_s > left_s:
                    raise self._unavailable(trouble, tries, failing_s) from None
                await asyncio.sleep(wait_s)

    async def _try(self, method: str, path: str, body: bytes | None, read: Callable[[bytes], T]) -> T:
        """One try. Raises _Trouble, ServerRefused and AnswerTooLong."""
        import httpx2

        try:
            async with asyncio.timeout(self.options.timeout_s):
                status, headers, content = await self._exchange(method, self._url(path), body)
        except TimeoutError:
            raise _Trouble(f"has not answered within {self.options.timeout_s:g} s") from None
        except (ImportError, ValueError) as error:
            raise ServerRefused(
                f"{self._named} cannot be asked by the proxy that the environment names: {error}"
            ) from None
        except (httpx2.RequestError, OSError) as error:
            if UNTRUSTED in str(error):
                raise ServerRefused(
                    f"{self._named} has a certificate that is not trusted; set SSL_CERT_FILE to a file with the "
                    f"certificate of your authority ({error})"
                ) from None
            raise _Trouble(f"cannot be reached ({type(error).__name__}: {error or 'no message'})") from None
        if status in MAY_PASS:
            said = f"answers with status {status}: {self._excerpt(content)}"
            pause_s = _pause_s(headers.get("retry-after", ""))
            raise _Trouble(said, busy=status == TOO_MANY, pause_s=pause_s)
        if status != 200:
            remedy = _REMEDIES.get(status, "the same request will be refused again")
            raise ServerRefused(
                f"{self._named} refuses the request with status {status}: {self._excerpt(content)}; {remedy}"
            )
        try:
            return read(content)
        except (ValueError, LookupError, TypeError):
            raise _Trouble(
                f"answers, but not as a server of chat completions: {self._excerpt(content)}"
            ) from None

    async def _exchange(self, method: str, url: str, body: bytes | None) -> tuple[int, Headers, bytes]:
        content = bytearray()
        async with self._client.stream(method, url, content=body) as answer:
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise AnswerTooLong(f"the server sent more than {MOST_BYTES:,} bytes in one answer")
        return answer.status_code, answer.headers, bytes(content)

    @cached_property
    def _client(self) -> AsyncClient:
        """The HTTP client. Loopback is never asked through a proxy of the environment."""
        import httpx2

        parts, key = self.options.parts, self.options.key
        headers = {"User-Agent": "bandscope", "Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        elif parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        return httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(None, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self.options.requests),
            verify=httpx2.create_ssl_context(),  # the system's certificates, or those of SSL_CERT_FILE
            trust_env=not _is_loopback(parts.hostname or ""),  # the proxies of the environment
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
        if self._down_since is None or now - self._last_trouble > PATIENCE_S:
            self._down_since = now
        self._last_trouble = now
        return self._down_since

    def _unavailable(self, trouble: _Trouble, tries: int, failing_s: float) -> ServerUnavailable:
        return ServerUnavailable(
            f"{self._named} {trouble} ({tries} {'try' if tries == 1 else 'tries'}, failing for {failing_s:.0f} s). "
            f"Start it, or correct BANDSCOPE_TAGGER_URL; `bandscope doctor` examines it, and the next run computes "
            f"the song"
        )

    @property
    def _named(self) -> str:
        return f"The server of the tagger, {self.options.shown},"

    def _excerpt(self, content: bytes) -> str:
        """The server's own message, shortened, without our key."""
        text = plain_text(_message_of(content))
        secrets = (self.options.key, self.options.parts.password)
        for secret in secrets:
            text = text.replace(secret, "…") if secret else text
        return repr(text[:EXCERPT]) if text else "no message"


def _text_of(content: bytes) -> str:
    """The text of a chat completion. Raises ValueError, LookupError or TypeError if it is none."""
    text = json.loads(content)["choices"][0]["message"]["content"]
    if not isinstance(text, str | None):
        raise TypeError(f"content is {type(text).__name__}")
    return text or ""


def _message_of(content: bytes) -> str:
    """The message in a server's answer with an error: that of OpenAI's interface, or else the beginning of it all."""
    text = content[: 10 * EXCERPT].decode(errors="replace")
    try:
        document: Any = json.loads(content)
        return str(document.get("error", document).get("message", text))
    except (ValueError, AttributeError):
        return text


def _pause_s(retry_after: str) -> float:
    """The seconds that a Retry-After asks for: a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        due = parsedate_to_datetime(retry_after)
        return max(0.0, (due - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
