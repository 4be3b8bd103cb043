"""A server of model files that speaks as much of the Hugging Face hub's protocol as a download needs, faults included.

``GET`` and ``HEAD`` of ``/<owner>/<name>/resolve/<revision>/<file>``, with the headers that huggingface_hub reads, and
``GET`` of ``/api/models/<owner>/<name>/revision/<revision>?blobs=true``, which lists the files and their digests.
"""

import hashlib
import json
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from huggingface_hub import constants

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

    contents: Mapping[str, bytes]  # by file name
    listing: dict[str, dict[str, Any]]  # what it states of each file, by name
    revision: str = REVISION  # that the listing is of, whichever is asked for
    endpoint: str = ""
    listed: int = 0  # how often it was asked for the listing
    faults: dict[str, Fault] = field(default_factory=dict[str, Fault])  # by file name; or of the "listing"
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # (method, file name)
    half_sent: threading.Event = field(default_factory=threading.Event)  # of a file whose answer stalls
    ended: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[str]:
        """The files that were asked for with GET."""
        return [name for method, name in self.requests if method == "GET"]


def stated(name: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it: weights lie in large-file storage and have a SHA-256, other files are git's."""
    if name.endswith(".safetensors"):
        lfs = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
        return {"rfilename": name, "size": len(content), "blobId": "0" * 40, "lfs": lfs}
    blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"rfilename": name, "size": len(content), "blobId": blob_id}


@contextmanager
def run_hub_server(contents: Mapping[str, bytes] = CONTENTS) -> Iterator[HubServer]:
    """A server on a free port of this machine."""
    hub = HubServer(contents, {name: stated(name, content) for name, content in contents.items()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            if self.path.startswith("/api/models/"):
                self._list()
                return
            folder, _, name = self.path.rpartition("/")
            if "/resolve/" in folder:  # the library also asks for things that are no files
                hub.requests.append((self.command, name))
            fault = hub.faults.get(name)
            if folder != f"/{REPOSITORY}/resolve/{REVISION}" or name not in hub.contents or fault == "404":
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "500" and self.command == "GET":
                self.send_error(500)
                return
            whole = hub.contents[name]
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

        def _list(self) -> None:
            hub.listed += 1
            found = self.path == f"/api/models/{REPOSITORY}/revision/{REVISION}?blobs=true"
            if not found or "listing" in hub.faults:
                self.send_error(500 if found else 404)
                return
            files = list(hub.listing.values())
            body = json.dumps({"id": REPOSITORY, "sha": hub.revision, "siblings": files}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

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


def use_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this test's hub be ``server``, and its caches lie in ``folder``.

    The library reads its environment once, when it is imported, so its constants are set.
    """
    template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(folder / "harnesses"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
