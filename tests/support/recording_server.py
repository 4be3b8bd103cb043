"""An HTTP server that gives chosen answers and keeps what it was asked."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Request:
    """One request. The names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class RecordingServer:
    """A running server, and its requests so far."""

    url: str
    requests: list[Request] = field(default_factory=list[Request])


@contextmanager
def recording_server(
    answer: Callable[[Request], tuple[int, bytes]],
    secure: Callable[[ThreadingHTTPServer], None] | None = None,
) -> Generator[RecordingServer]:
    """Serve ``answer`` (status and body) on a free port. ``secure`` may put TLS around the server's socket.

    Status 302 names a place to go to, /elsewhere; 301 names none, as a server of another S3 region does.
    """

    class Handler(BaseHTTPRequestHandler):
        def _reply(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, body)
            server.requests.append(request)
            status, reply = answer(request)
            self.send_response(status)
            self.send_header("content-length", str(len(reply)))
            if status == 302:
                self.send_header("location", f"{server.url}/elsewhere")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _reply

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        if secure is not None:
            secure(listener)
        server = RecordingServer(f"http://127.0.0.1:{listener.server_port}")
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown()
