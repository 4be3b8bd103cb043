"""A server of model files that speaks as much of the Hugging Face hub's protocol as a download needs, faults included.

``GET`` and ``HEAD`` of ``/<owner>/<name>/resolve/<revision>/<file>``, with the headers that huggingface_hub reads.
"""

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from bandscope_dagster.models.inventory import HubSource, Model, ModelFile

REPOSITORY, REVISION = "mia/tiny", "0123456789abcdef0123456789abcdef01234567"
CONTENTS = {name: random.Random(name).randbytes(200_000) for name in ("one.safetensors", "two.safetensors")}

Fault = Literal["wrong", "short", "404", "500", "dropped", "stalled"]


def hub_model(contents: dict[str, bytes] = CONTENTS) -> Model:
    """A model with these files, at the revision that the server has."""
    return Model(
        name="tiny",
        kind="separator",
        embedded=False,
        description="Random bytes.",
        licence="MIT",
        citation="",
        files=tuple(
            ModelFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in contents.items()
        ),
        source=HubSource(url="", repository=REPOSITORY, revision=REVISION),
    )


@dataclass(slots=True)
class HubServer:
    """A running server: what it has, how it fails, and what it was asked for."""

    endpoint: str = ""
    faults: dict[str, Fault] = field(default_factory=dict[str, Fault])  # by file name
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # (method, file name)
    half_sent: threading.Event = field(default_factory=threading.Event)  # of a file whose answer stalls
    ended: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[str]:
        """The files that were asked for with GET."""
        return [name for method, name in self.requests if method == "GET"]


@contextmanager
def run_hub_server() -> Iterator[HubServer]:
    """A server on a free port of this machine."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            folder, _, name = self.path.rpartition("/")
            if "/resolve/" in folder:  # the library also asks for things that are no files
                hub.requests.append((self.command, name))
            fault = hub.faults.get(name)
            if folder != f"/{REPOSITORY}/resolve/{REVISION}" or name not in CONTENTS or fault == "404":
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "500" and self.command == "GET":
                self.send_error(500)
                return
            whole = CONTENTS[name]
            body = bytes(len(whole)) if fault == "wrong" else whole
            if self.command == "GET" and fault == "short":
                body = body[: len(body) // 2]
            start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") :].partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(whole).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            if fault in ("dropped", "stalled"):
                self.wfile.write(body[start : len(body) // 2])
                self.wfile.flush()
                if fault == "stalled":
                    hub.half_sent.set()
                    hub.ended.wait(60)
                self.close_connection = True
                return
            self.wfile.write(body[start:])

        def do_GET(self) -> None:
            with suppress(ConnectionError):
                self._answer()

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
