"""The cost of very many songs: Dagster's records are measured, the queue and the GPUs are simulated.

    python -m benchmarks.scale [--songs 1000 10000 100000] [--runs 20] [--database sqlite|postgres] [--simulate-only]

First, for each size, a real Dagster instance gets that many songs (partitions), one materialization of each, and at
most ``--runs`` of the runs that a backfill over all of them queues, evenly spaced. Then it gets the queries of the
sensor, `bandscope status`, the asset's page in the UI, and the daemon's check of the queue.

Then the queue and the GPUs are simulated, event by event: batches of songs wait for a GPU, and so do songs that are
uploaded one by one meanwhile. Two assumptions are printed and can be set: the seconds of a song on a GPU, and the
seconds of a run before its first song. The last line is JSON.
"""

import argparse
import heapq
import json
import os
import random
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import dagster as dg
from rich.progress import track

from bandscope_dagster.definitions import defs
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS, song_states
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG
from bandscope_dagster.orchestration.steps import keep_connections_open
from bandscope_dagster.settings import load_settings
from benchmarks.measuring import ROOT, spent
from tests.support.daemon import open_instance
from tests.support.postgres import run_postgres

DEPLOYED: Final = ROOT / "deploy" / "dagster.yaml"
ASSET: Final = "stems"
JOB: Final = "process_songs"
SONGS_PER_RUN: Final = load_settings().songs_per_run
LATE_SONGS: Final = 200
START_S: Final = 15.0  # from the start of a run's process or pod to its first song, with loading the model


@dataclass(frozen=True, slots=True)
class Records:
    """Seconds of Dagster's operations with this many songs."""

    songs: int
    register: float
    list_songs: float
    materialize_ms_per_song: float
    states: float  # states of all songs in one asset: the query of the sensor, status and retry
    page: float  # the query of the asset's page in the UI
    runs: int  # number of created runs
    create_run_ms: float  # one run of a batch, with Dagster's planned event for each song
    waiting_runs: float  # one query for all of these runs


@dataclass(frozen=True, slots=True)
class Work:
    """Times of processing a collection."""

    songs: int
    gpus: int
    hours: float
    gpu_busy: float  # share of the time in which a GPU computes a song
    late_median_s: float  # wait for a GPU of songs that are uploaded meanwhile
    late_worst_s: float
    fifo_median_s: float  # the same without priority for small runs


@contextmanager
def new_instance(database: str) -> Iterator[dg.DagsterInstance]:
    """Yield a Dagster instance without records."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        if database == "sqlite":
            (home / "dagster.yaml").write_text(DAGSTER_YAML)
            with open_instance(home) as instance:
                yield instance
            return
        (home / "dagster.yaml").write_text(DEPLOYED.read_text())
        with run_postgres() as server:
            os.environ.update(server.database().environment())
            with open_instance(home) as instance:
                keep_connections_open(instance)
                yield instance


def create_runs(instance: dg.DagsterInstance, songs: Sequence[str], at_most: int) -> int:
    """Create runs of a backfill over all songs, without queueing them; returns their number."""
    job = defs.resolve_job_def(JOB)
    starts = range(0, len(songs), SONGS_PER_RUN)
    starts = starts[:: max(1, len(starts) // at_most)][:at_most]
    for start in track(starts, description="creating runs"):
        batch = songs[start : start + SONGS_PER_RUN]
        tags = {RANGE_START_TAG: batch[0], RANGE_END_TAG: batch[-1]}
        instance.create_run_for_job(job, tags=tags)
    return len(starts)


def measure(songs: int, database: str, at_most: int) -> Records:
    """Add the songs to a new instance, and time the queries."""
    names = [f"a-song-of-someone-{number:012x}" for number in range(songs)]
    with new_instance(database) as instance:
        register = spent(lambda: instance.add_dynamic_partitions(SONGS_NAME, names)).wall
        listed = spent(lambda: instance.get_dynamic_partitions(SONGS_NAME)).wall
        began = time.perf_counter()
        for name in track(names, description=f"{songs} materializations"):
            instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=name))
        materialize = time.perf_counter() - began
        states = spent(lambda: song_states(instance, names, [ASSET])).wall
        page = spent(
            lambda: instance.get_status_by_partition(dg.AssetKey(ASSET), names, SONGS_PARTITIONS)
        ).wall
        began = time.perf_counter()
        runs = create_runs(instance, names, at_most)
        created = time.perf_counter() - began
        waiting = dg.RunsFilter(statuses=[dg.DagsterRunStatus.NOT_STARTED])
        look = spent(lambda: instance.get_runs(filters=waiting)).wall
    return Records(
        songs,
        register=register,
        list_songs=listed,
        materialize_ms_per_song=1000 * materialize / songs,
        states=states,
        page=page,
        runs=runs,
        create_run_ms=1000 * created / runs,
        waiting_runs=look,
    )


def simulate(songs: int, gpus: int, song_s: float, start_s: float, batch: int = SONGS_PER_RUN) -> Work:
    """Simulate processing ``songs`` that are requested at once, in runs of ``batch``.

    Each GPU has one run at a time, which takes ``start_s`` and then ``song_s`` per song. Meanwhile single songs are
    uploaded at random times, each with its own run. As with the sensor, such small runs have priority over batches.
    """
    batches = [min(batch, songs - first) for first in range(0, songs, batch)]
    last = (len(batches) * start_s + songs * song_s) / gpus
    chance = random.Random(0)
    uploads = sorted(chance.uniform(0, last) for _ in range(LATE_SONGS))
    waits, end = work_off(batches, uploads, gpus, song_s, start_s, small_first=True)
    in_turn, _ = work_off(batches, uploads, gpus, song_s, start_s, small_first=False)
    return Work(
        songs,
        gpus,
        hours=end / 3600,
        gpu_busy=(songs + len(uploads)) * song_s / (gpus * end),
        late_median_s=statistics.median(waits),
        late_worst_s=max(waits),
        fifo_median_s=statistics.median(in_turn),
    )


def work_off(
    batches: Sequence[int],
    uploads: Sequence[float],
    gpus: int,
    song_s: float,
    start_s: float,
    *,
    small_first: bool,
) -> tuple[list[float], float]:
    """The wait for a GPU of each song uploaded at ``uploads``, and the end of all work; all in seconds."""
    free = [0.0] * gpus  # when each GPU is free again
    left, late = deque(batches), deque(uploads)
    waits: list[float] = []
    while left or late:
        now = heapq.heappop(free)
        if late and (not left or (small_first and late[0] <= now)):
            uploaded = late.popleft()
            now, size = max(now, uploaded), 1
            waits.append(now + start_s - uploaded)
        else:
            size = left.popleft()
        heapq.heappush(free, now + start_s + size * song_s)
    return waits, max(free)


def print_table(rows: Sequence[Records | Work]) -> None:
    """Print a header with the names of the fields, and a line for each row."""
    print("  ".join(f"{name:>24}" for name in asdict(rows[0])))
    for row in rows:
        print("  ".join(f"{value:>24,.4g}" for value in asdict(row).values()))


def main() -> None:
    """Measure, simulate and print."""
    parser = argparse.ArgumentParser(description="Measure and simulate the cost of many songs.")
    parser.add_argument("--songs", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=20, help="most runs to create (default: 20)")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--simulate-only", action="store_true")
    parser.add_argument("--simulated", type=int, nargs="+", default=[1_000, 100_000, 10_000_000])
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 4, 64])
    parser.add_argument(
        "--song-s", type=float, default=4.17, help="seconds per song on a GPU (default: 4 / 0.96)"
    )
    parser.add_argument(
        "--start-s", type=float, default=START_S, help="seconds of a run before its first song (default: 15)"
    )
    arguments = parser.parse_args()
    records: list[Records] = []
    if not arguments.simulate_only:
        for songs in arguments.songs:
            records.append(measure(songs, arguments.database, arguments.runs))
            print_table(records[-1:])
    print(
        f"\nsimulated: {arguments.song_s:g} s of a GPU for a song, {arguments.start_s:g} s before a run's first"
    )
    work = [
        simulate(songs, gpus, arguments.song_s, arguments.start_s)
        for songs in arguments.simulated
        for gpus in arguments.gpus
    ]
    print_table(work)
    print(json.dumps({"records": [asdict(row) for row in records], "work": [asdict(row) for row in work]}))


if __name__ == "__main__":
    main()
