"""A server of model files with the part of the Hugging Face hub's protocol that a download needs, and with faults.

It answers ``GET`` and ``HEAD`` of ``/<owner>/<name>/resolve/<revision>/<file>`` with the headers that huggingface_hub
reads, and ``GET`` of ``/api/models/<owner>/<name>/revision/<revision>?blobs=true`` with the files and their digests.
"""

import hashlib
import json
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal

import pytest
from http_servers import new_server, serving
from huggingface_hub import constants

from bandscope_dagster.models.inventory import HubSource, Model, ModelFile

REPOSITORY, REVISION = "mia/tiny", "0123456789abcdef0123456789abcdef01234567"
CONTENTS = {name: random.Random(name).randbytes(200_000) for name in ("one.safetensors", "two.safetensors")}

Fault = Literal["wrong", "short", "404", "500", "dropped", "stalled"]


def hub_model(contents: dict[str, bytes] = CONTENTS) -> Model:
    """A model with these files, at the server's revision."""
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
    """A running server: its files, its faults and the requests so far."""

    contents: Mapping[str, bytes]  # by file name
    listing: dict[str, dict[str, Any]]  # file name → its entry in the listing
    revision: str = REVISION  # of the listing, for any requested revision
    endpoint: str = ""
    listed: int = 0  # number of requests for the listing
    faults: dict[str, Fault] = field(
        default_factory=dict[str, Fault]
    )  # by file name; "listing" for the listing
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # (method, file name)
    half_sent: threading.Event = field(
        default_factory=threading.Event
    )  # set when half of a stalled file is sent
    ended: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[str]:
        """The names of the files that clients requested with GET."""
        return [name for method, name in self.requests if method == "GET"]


def stated(name: str, content: bytes) -> dict[str, Any]:
    """A file's entry in the hub's listing. Weights are in Git LFS and have a SHA-256; others have a git blob id."""
    if name.endswith(".safetensors"):
        lfs = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 134}
        return {"rfilename": name, "size": len(content), "blobId": "0" * 40, "lfs": lfs}
    blob_id = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"rfilename": name, "size": len(content), "blobId": blob_id}


@contextmanager
def run_hub_server(contents: Mapping[str, bytes] = CONTENTS) -> Iterator[HubServer]:
    """Run a server on a free port of this machine while the block runs."""
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
            if "/resolve/" in folder:  # the library also requests other things than files
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

    server, hub.endpoint = new_server(Handler)
    with serving(server):
        try:
            yield hub
        finally:
            hub.ended.set()


def use_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the library use ``server`` as its hub and ``folder`` for its caches, in this test.

    The library reads its environment once, at import, so this changes its constants.
    """
    template = f"{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(folder / "harnesses"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
