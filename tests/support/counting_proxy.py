"""A TCP proxy in front of the S3 server that counts the bytes sent to clients, headers included.

It is a process of its own: a library that holds Python's lock while it waits for an answer would else wait for ever.
"""

import multiprocessing
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlsplit

PIECE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class CountingProxy:
    """A running proxy. ``received`` counts the bytes that clients got; ``reset`` begins a measurement."""

    endpoint: str
    counter: Any  # of multiprocessing

    @property
    def received(self) -> int:
        """The bytes that clients got since ``reset``."""
        return self.counter.value

    def reset(self) -> None:
        """Count from 0."""
        self.counter.value = 0


@contextmanager
def run_counting_proxy(upstream: str) -> Iterator[CountingProxy]:
    """Run a proxy to ``upstream`` (``http://host:port``) while the block runs."""
    address = urlsplit(upstream)
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    ours, its = context.Pipe()
    target = (str(address.hostname), address.port or 80)
    process = context.Process(target=_serve, args=(target, counter, its), daemon=True)
    process.start()
    try:
        yield CountingProxy(f"http://127.0.0.1:{ours.recv()}", counter)
    finally:
        process.kill()
        process.join()


def _serve(upstream: tuple[str, int], counter: Any, ready: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready.send(server.getsockname()[1])
        while True:
            client, _ = server.accept()
            target = socket.create_connection(upstream)
            for ends in ((client, target, None), (target, client, counter)):
                threading.Thread(target=_pipe, args=ends, daemon=True).start()


def _pipe(source: socket.socket, sink: socket.socket, counter: Any) -> None:
    with suppress(OSError), source, sink:
        while data := source.recv(PIECE_BYTES):
            if counter is not None:
                with counter.get_lock():
                    counter.value += len(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
