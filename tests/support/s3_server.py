"""A real S3 server (SeaweedFS) on its own ports while a block of code runs."""

import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore, S3Options
from deploy.servers import seaweedfs
from deploy.servers.leftovers import MARK, guarded
from deploy.servers.processes import free_ports, wait_until
from deploy.servers.seaweedfs import INTERNAL_PORTS, START_TIMEOUT_S, start_seaweedfs


@dataclass(frozen=True, slots=True)
class S3Server(seaweedfs.S3Server):
    """A running server with one bucket."""

    def place(self, endpoint: str | None = None) -> "S3Place":
        """A new, empty prefix, reached through ``endpoint`` (of a proxy) or directly."""
        return S3Place(
            url=f"s3://{self.bucket}/{uuid.uuid4().hex}",
            endpoint=endpoint or self.endpoint,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            region=self.region,
        )


@dataclass(frozen=True, slots=True)
class S3Place:
    """A store's URL, and the settings to reach it."""

    url: str
    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str

    def open(self) -> ObjectStore:
        """The store at this URL."""
        return open_store(
            self.url, S3Options(self.endpoint, self.access_key_id, self.secret_access_key, self.region)
        )

    def environment(self) -> dict[str, str]:
        """The standard AWS environment variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
        }


@contextmanager
def run_s3_server(folder: Path) -> Generator[S3Server]:
    """Start SeaweedFS with its data in ``folder`` and one empty bucket; stop it at the end."""
    port, *others = free_ports(1 + len(INTERNAL_PORTS))
    server = S3Server(port, "test-access-key", "test-secret-key", reader_key_id="test-reader")
    internal_ports = dict(zip(INTERNAL_PORTS, others, strict=True))
    mark = uuid.uuid4().hex
    with guarded(mark):
        environment = os.environ | {MARK: mark}
        process = start_seaweedfs(server, folder, internal_ports, folder / "server.log", environment)
        try:
            wait_until(
                "the S3 server takes an object", server.takes_objects, process, timeout_s=START_TIMEOUT_S
            )
            yield server
        finally:
            process.kill()  # at once: its data is not needed any more
