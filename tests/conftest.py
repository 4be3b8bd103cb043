"""Fixtures that several test files share."""

import os
import signal
from collections.abc import Iterator

import pytest
from faulty_proxy import FaultyProxy, run_faulty_proxy
from s3_server import S3Server, run_s3_server

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore

os.environ["BANDSCOPE_STEP_RETRY_DELAY_S"] = "0"  # read when the assets are imported

# A shell has what it starts in the background ignore SIGINT. Dagster would ignore SIGTERM then as well, and whatever a
# test starts would be deaf to both.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; ``s3_server.place()`` is an empty store on it."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def faulty_proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """A proxy before the S3 server, without rules yet: ``s3_server.place(faulty_proxy.endpoint)``."""
    with run_faulty_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty store of each kind."""
    if request.param == "local":
        return open_store(str(request.getfixturevalue("tmp_path") / "store"))
    return request.getfixturevalue("s3_server").place().open()
