"""The sensor for new uploads on ten thousand uploads: the number of ticks and their length.

    python -m benchmarks.sensor [--songs N]

A real Dagster daemon in a new home (SQLite) watches a local store of empty files; one in a hundred has no audio
extension. The run queue starts no run, so only the ticks are measured: one listing, the registration, and the creation
of runs over all tables, 64 songs each. When all songs are in a run, five more ticks find nothing new.

The last line is JSON: the number of ticks until all songs were registered and until all were in a run, and the seconds
of the longest of them and of the longest tick without new songs.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from daemon import LIMITED_YAML, Home, wait_for

from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.orchestration.sensors.new_uploads import UPLOADS_SENSOR, Cursor

Tick = Any  # Dagster's InstigatorTick, which has no public name
IDLE_TICKS = 5
OWNERS = 10
TIMEOUT_S = 3600.0
NO_RUN_STARTS = """\
concurrency:
  runs:
    max_concurrent_runs: 0"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the ticks of the sensor for new uploads.")
    parser.add_argument("--songs", type=int, default=10_000)
    parser.add_argument("--job", default="process_songs", help="job that the sensor starts")
    arguments = parser.parse_args()
    songs = arguments.songs
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = Path(folder) / "store"
        write_uploads(store, songs)
        home = Home.make(
            Path(folder) / "home",
            store,
            yaml=LIMITED_YAML.replace("concurrency:", NO_RUN_STARTS),
            variables={"TEST_SENSORS": UPLOADS_SENSOR, "TEST_UPLOADS_JOB": arguments.job},
        )
        with home.instance() as instance, home.daemon():
            wait_for("all songs are registered", lambda: count(instance) == songs, TIMEOUT_S)
            registered_after = 1 + len(split(instance)[0])  # the tick that registered them is still running
            wait_for("ticks without new songs", lambda: len(split(instance)[1]) >= IDLE_TICKS, TIMEOUT_S)
            busy, idle = split(instance)
            runs = instance.get_runs_count()
            requested = Cursor.parse(idle[0].cursor).requested
    assert requested == songs, f"{requested} requested"
    for number, tick in enumerate(reversed(busy), start=1):
        print(f"tick {number:2}: {seconds(tick):6.2f} s, {len(tick.run_ids)} runs")
    report = {
        "songs": songs,
        "runs": runs,
        "ticks_until_registered": registered_after,
        "ticks_until_requested": len(busy),
        "longest_tick_s": round(max(map(seconds, busy)), 2),
        "longest_idle_tick_s": round(max(map(seconds, idle)), 2),
    }
    print(json.dumps(report))


def count(instance: dg.DagsterInstance) -> int:
    """The number of registered songs."""
    return len(instance.get_dynamic_partitions(SONGS_NAME))


def split(instance: dg.DagsterInstance) -> tuple[list[Tick], list[Tick]]:
    """The finished ticks that requested runs, and those that found nothing new; latest first."""
    ended = [
        tick
        for state in instance.all_instigator_state()
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
        if tick.end_timestamp is not None
    ]
    return [tick for tick in ended if tick.run_ids], [tick for tick in ended if not tick.run_ids]


def seconds(tick: Tick) -> float:
    """The length of a tick in seconds, from its start in the daemon until the last run was queued."""
    return (tick.end_timestamp or 0.0) - tick.timestamp


def write_uploads(store: Path, songs: int) -> None:
    """Write empty files of several owners."""
    for owner in range(OWNERS):
        (store / "uploads" / f"owner {owner}").mkdir(parents=True)
    for number in range(songs):
        (store / "uploads" / f"owner {number % OWNERS}" / f"song {number:06}.wav").touch()
        if number % 100 == 0:
            (store / "uploads" / f"owner {number % OWNERS}" / f"cover {number:06}.jpg").touch()


if __name__ == "__main__":
    main()
