"""An HTTP server for the files of a folder, with byte ranges, that counts the bytes it sends."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class CountingServer(ThreadingHTTPServer):
    """Serves ``folder`` on a free port; ``sent`` is the number of bytes of all bodies so far."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.sent = 0
        self.lock = threading.Lock()

    def url(self, path: str) -> str:
        """The URL of a file in the folder."""
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        server = self.server
        assert isinstance(server, CountingServer)
        path = server.folder / self.path.lstrip("/")
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        start, end = 0, size
        if asked and asked[1]:
            start, end = int(asked[1]), min(int(asked[2]) + 1, size) if asked[2] else size
        elif asked:
            start = max(0, size - int(asked[2]))
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(start)
                self.wfile.write(file.read(end - start))
            with server.lock:
                server.sent += end - start

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the benchmark prints its own lines."""


@contextmanager
def counting_server(folder: Path) -> Iterator[CountingServer]:
    """Serve ``folder`` while the block runs."""
    server = CountingServer(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
