"""Our store against s3fs on a local SeaweedFS: upload, download and listing, interleaved in one run.

    python benchmarks/object_store.py

Each figure is the median of the rounds. A ratio above 1 means that our store is faster. The last line is JSON.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import s3fs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from s3_server import S3Place, run_s3_server

MIB = 1024 * 1024
OBJECT_MIB = 64  # about a three-minute song with four stems
LISTED_KEYS = 10_000
ROUNDS = 5


def main() -> None:
    """Run the comparison and print it."""
    with tempfile.TemporaryDirectory() as folder, run_s3_server(Path(folder)) as server:
        seconds = measure(server.place())
    report: dict[str, float] = {}
    for operation, unit, amount in (
        ("upload", "MiB/s", OBJECT_MIB),
        ("download", "MiB/s", OBJECT_MIB),
        ("list", "keys/s", LISTED_KEYS),
    ):
        ours, theirs = (statistics.median(seconds[f"{operation}_{who}"]) for who in ("ours", "s3fs"))
        report |= {
            f"{operation}_ours_s": ours,
            f"{operation}_s3fs_s": theirs,
            f"{operation}_ratio": theirs / ours,
        }
        print(
            f"{operation:9} ours {amount / ours:9.0f} {unit:7} s3fs {amount / theirs:9.0f} {unit:7} "
            f"{theirs / ours:5.1f} times faster"
        )
    print(json.dumps({name: round(value, 4) for name, value in report.items()}))


def measure(place: S3Place) -> dict[str, list[float]]:
    """The seconds of every operation in every round."""
    store = place.open()
    theirs = s3fs.S3FileSystem(
        key=place.access_key_id,
        secret=place.secret_access_key,
        endpoint_url=place.endpoint,
        use_listings_cache=False,
    )
    root = place.url.removeprefix("s3://")
    data = bytes(MIB) * OBJECT_MIB

    def upload_ours() -> None:
        with store.create("big") as pending:
            pending.write(data)

    def upload_s3fs() -> None:
        with theirs.open(f"{root}/big", "wb") as file:
            file.write(data)

    def download_ours() -> None:
        assert sum(map(len, store.chunks("big"))) == len(data)

    def download_s3fs() -> None:
        with theirs.open(f"{root}/big", "rb") as file:
            assert sum(len(chunk) for chunk in iter(lambda: file.read(MIB), b"")) == len(data)

    def list_ours() -> None:
        assert sum(1 for _ in store.list("many")) == LISTED_KEYS

    def list_s3fs() -> None:
        assert len(theirs.find(f"{root}/many")) == LISTED_KEYS

    def put_one(number: int) -> None:
        with store.create(f"many/{number:06d}") as pending:
            pending.write(b"x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put_one, range(LISTED_KEYS)))
    operations: list[Callable[[], None]] = [
        upload_ours,
        upload_s3fs,
        download_ours,
        download_s3fs,
        list_ours,
        list_s3fs,
    ]
    seconds: dict[str, list[float]] = {operation.__name__: [] for operation in operations}
    for _ in range(ROUNDS):
        for operation in operations:
            started = time.perf_counter()
            operation()
            seconds[operation.__name__].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    main()
