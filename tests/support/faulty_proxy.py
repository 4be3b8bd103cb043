"""An HTTP proxy in front of the S3 server that breaks chosen requests with real network faults."""

import http.client
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from random import Random
from typing import Literal
from urllib.parse import unquote, urlsplit

Fault = Literal[
    "403", "500", "501", "503", "reset", "truncated", "silent", "slow", "lost", "stale", "unconditional"
]
PASSING: tuple[Fault, ...] = ("500", "503", "reset", "truncated", "silent", "slow", "lost", "stale")
"""The faults of object stores and networks. "lost": the server carries the request out, but the answer never arrives.
"stale": the listing as it was before."""
# Two that do not pass are of servers that do not know If-None-Match: "501" refuses it, and "unconditional" ignores it,
# and answers that the object was replaced.

SLOW_PIECES, SLOW_S = 10, 0.1  # a slow answer comes in pieces, with a pause before each
SILENT_S = 60.0  # at most; until the client gives up
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}  # RFC 9110, section 7.6.1


@dataclass(slots=True)
class Rule:
    """Break the next ``times`` requests (all, if None) whose method and path match."""

    pattern: str  # regular expression, searched in the percent-decoded path and query
    fault: Fault
    method: str | None = None  # None: any method
    times: int | None = None
    matched: int = 0  # number of broken requests

    def takes(self, method: str, path: str) -> bool:
        """True if the rule breaks this request."""
        spent = self.times is not None and self.matched >= self.times
        return not spent and self.method in (None, method) and re.search(self.pattern, path) is not None


@dataclass(slots=True)
class FaultyProxy:
    """A running proxy and its rules. It forwards requests that match no rule unchanged."""

    endpoint: str
    upstream: str
    rules: list[Rule] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)  # (method, path), broken ones included
    broken: Counter[str] = field(default_factory=Counter[str])  # requests broken at random, by fault
    listings: dict[str, bytes] = field(default_factory=dict)  # path → the last answer
    _share: float = 0.0
    _random: Random = field(default_factory=Random)
    _faults: Iterator[Fault] = field(default_factory=lambda: cycle(PASSING))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(
        self, pattern: str, fault: Fault = "503", *, method: str | None = None, times: int | None = None
    ) -> Rule:
        """Add a rule; ``rule.matched`` counts the requests that it broke."""
        rule = Rule(pattern, fault, method, times)
        self.rules.append(rule)
        return rule

    def fail_at_random(self, share: float, seed: int, faults: Sequence[Fault] = PASSING) -> None:
        """Break this share of the requests that match no rule, with each of ``faults`` equally often."""
        self._share, self._random = share, Random(seed)
        self._faults = cycle(self._random.sample(faults, len(faults)))
        self.listings.clear()

    def heal(self) -> None:
        """Forget all rules and the record of requests."""
        self._share = 0.0
        self.rules.clear()
        self.requests.clear()

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Record a request, and choose its fault, if any."""
        with self._lock:
            self.requests.append((method, path))
            for rule in self.rules:
                if rule.takes(method, path):
                    rule.matched += 1
                    return rule.fault
            if self._random.random() < self._share:
                fault = next(self._faults)
                self.broken[fault] += 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def forward(self) -> None:
        """Answer one request."""
        body = self._body()
        fault = self.proxy.fault_for(self.command, unquote(self.path))
        if fault == "501" and "If-None-Match" not in self.headers:
            fault = None
        if fault == "reset":
            self._reset()
        elif fault == "silent":
            self.connection.settimeout(SILENT_S)
            with suppress(OSError):
                self.connection.recv(1)  # until the client gives up
            self.close_connection = True
        elif fault in ("403", "500", "501", "503"):
            self._answer(int(fault), [], b"<Error><Code>Broken</Code><Message>by a rule</Message></Error>")
        else:
            # The Host header must not change: the signature covers it.
            upstream = http.client.HTTPConnection(urlsplit(self.proxy.upstream).netloc, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            response = upstream.getresponse()
            data = response.read()
            headers = [(k, v) for k, v in response.getheaders() if k.lower() not in HOP_BY_HOP]
            if self.command == "HEAD":
                headers.append(("Content-Length", response.headers.get("Content-Length", "0")))
            upstream.close()
            if self.command == "GET" and "list-type" in self.path:
                before = self.proxy.listings.get(self.path, data)
                self.proxy.listings[self.path] = data
                data = before if fault == "stale" else data
            if fault == "unconditional" and response.status == HTTPStatus.PRECONDITION_FAILED:
                self._answer(HTTPStatus.OK, [("ETag", '"replaced"')], b"")
            elif fault == "lost":
                self._reset()
            else:
                self._answer(response.status, headers, data, cut=fault == "truncated", slow=fault == "slow")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward  # http.server calls these names

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            del self.headers["Transfer-Encoding"]
            self.headers["Content-Length"] = str(len(data))
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        *,
        cut: bool = False,
        slow: bool = False,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if cut:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif self.command != "HEAD":
            pieces = SLOW_PIECES if slow else 1
            size = -(-len(data) // pieces) or 1
            for start in range(0, len(data), size):
                time.sleep(SLOW_S if slow else 0)
                self.wfile.write(data[start : start + size])

    def _reset(self) -> None:
        # With a linger time of 0, close sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the proxy records its requests itself."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a disconnected or reset client is no error of the proxy."""

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with suppress(OSError):
            super().shutdown_request(request)


@contextmanager
def run_faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy to ``upstream`` (``http://host:port``) while the block runs; it starts without rules."""
    handler = type("Handler", (_Handler,), {})
    with _Server(("127.0.0.1", 0), handler) as server:
        proxy = FaultyProxy(endpoint=f"http://127.0.0.1:{server.server_address[1]}", upstream=upstream)
        handler.proxy = proxy  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
