"""A server of release assets with GitHub's addresses: a redirect to a second address, ranges, and faults."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Literal

from http_servers import new_server, serving

Fault = Literal["half", "500", "404", "no ranges", "endless"]


@dataclass(slots=True)
class ReleaseServer:
    """A running server: its assets, faults for the next requests, and the requests so far."""

    assets: Mapping[str, bytes]  # by path
    endpoint: str = ""
    faults: list[Fault] = field(default_factory=list[Fault])
    requests: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # (path, Range)


@contextmanager
def run_release_server(repository: str, release: str, assets: Mapping[str, bytes]) -> Iterator[ReleaseServer]:
    """Run a server on a free port of this machine while the block runs."""
    found = {f"/{repository}/releases/download/{release}/{name}": each for name, each in assets.items()}
    running = ReleaseServer(found)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if not self.path.startswith("/assets"):
                known = self.path in running.assets
                self.send_response(302 if known else 404)
                if known:
                    self.send_header("Location", f"{running.endpoint}/assets{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            ranged = self.headers.get("Range", "")
            running.requests.append((self.path, ranged))
            fault = running.faults.pop(0) if running.faults else None
            if fault in ("500", "404"):
                self.send_error(int(fault))
                return
            content = running.assets[self.path.removeprefix("/assets")]
            start = 0 if fault == "no ranges" else int(ranged.removeprefix("bytes=").partition("-")[0] or 0)
            body = content[start:] if fault != "endless" else content + bytes(2**20)
            self.send_response(206 if ranged and fault != "no ranges" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "half" else body)
            self.close_connection = True

    server, running.endpoint = new_server(Handler)
    with serving(server):
        yield running
