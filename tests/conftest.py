"""The option ``--long``, the order of the files, and fixtures that several test files share."""

import os
import signal
from collections.abc import Iterator

import pytest
from faulty_proxy import FaultyProxy, run_faulty_proxy
from hypothesis import settings
from s3_server import S3Server, run_s3_server
from slow_files import SLOW_FILES

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore

os.environ["BANDSCOPE_STEP_RETRY_DELAY_S"] = "0"  # read when the assets are imported

# A shell starts background jobs with SIGINT ignored. Dagster then ignores SIGTERM as well, and processes that a test
# starts would inherit both.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("quick", deadline=None)  # a busy machine is no failure
settings.register_profile("long", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--long``."""
    parser.addoption(
        "--long",
        action="store_true",
        help="also run tests marked `long`, and slow property tests with all their examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile before the test modules are imported; ``long_forms`` reads it then."""
    settings.load_profile("long" if config.getoption("--long") else "quick")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of slow files and put them first; skip the tests marked ``long`` in a run without ``--long``."""
    for item in items:
        if item.path.stem in SLOW_FILES:
            item.add_marker(pytest.mark.slow)
    first = {name: place for place, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long; run it with `pytest --long`"))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server; ``s3_server.place()`` is an empty store on it."""
    with run_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def faulty_proxy(s3_server: S3Server) -> Iterator[FaultyProxy]:
    """A proxy in front of the S3 server, still without faults: ``s3_server.place(faulty_proxy.endpoint)``."""
    with run_faulty_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty store of each kind."""
    if request.param == "local":
        return open_store(str(request.getfixturevalue("tmp_path") / "store"))
    return request.getfixturevalue("s3_server").place().open()
