"""A TCP proxy in front of the S3 server that counts the bytes sent to clients, headers included."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE_BYTES = 65_536


@dataclass(slots=True)
class CountingProxy:
    """A running proxy. ``received`` counts the bytes that clients got; set it to 0 before a measurement."""

    endpoint: str
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, size: int) -> None:
        """Add the size of a piece that is sent to a client."""
        with self._lock:
            self.received += size


@contextmanager
def run_counting_proxy(upstream: str) -> Iterator[CountingProxy]:
    """Run a proxy to ``upstream`` (``http://host:port``) while the block runs."""
    address = urlsplit(upstream)
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = CountingProxy(f"http://127.0.0.1:{server.getsockname()[1]}")

        def accept() -> None:
            with suppress(OSError):  # the server was closed
                while True:
                    client, _ = server.accept()
                    target = socket.create_connection((str(address.hostname), address.port or 80))
                    for ends in ((client, target, None), (target, client, proxy)):
                        threading.Thread(target=_pipe, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown(socket.SHUT_RDWR)


def _pipe(source: socket.socket, sink: socket.socket, counted: CountingProxy | None) -> None:
    with suppress(OSError), source, sink:
        while data := source.recv(PIECE_BYTES):
            if counted is not None:
                counted.count(len(data))
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
