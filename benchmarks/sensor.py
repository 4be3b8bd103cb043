"""The sensor for new uploads over ten thousand of them: how many ticks, and how long each takes.

    python -m benchmarks.sensor [--songs N]

A real Dagster daemon on a home of its own (SQLite) looks at a local store of empty files; one in a hundred is not named
like audio. The run queue lets nothing begin, so that only the ticks are measured: one listing, the registration, and
the creation of runs over the whole path, 64 songs each. When all songs are in a run, five more ticks find nothing.

The last line is JSON: the ticks after which all songs were registered and in a run, the longest of them and the longest
without anything new, in seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorTick

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from daemon import LIMITED_YAML, Home, wait_for

from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.orchestration.sensors.new_uploads import UPLOADS_SENSOR, Cursor

IDLE_TICKS = 5
OWNERS = 10
TIMEOUT_S = 3600.0
NOTHING_BEGINS = """\
concurrency:
  runs:
    max_concurrent_runs: 0"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the ticks of the sensor for new uploads.")
    parser.add_argument("--songs", type=int, default=10_000)
    parser.add_argument("--job", default="process_songs", help="what the sensor starts")
    arguments = parser.parse_args()
    songs = arguments.songs
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = Path(folder) / "store"
        write_uploads(store, songs)
        home = Home.make(
            Path(folder) / "home",
            store,
            yaml=LIMITED_YAML.replace("concurrency:", NOTHING_BEGINS),
            variables={"TEST_SENSORS": UPLOADS_SENSOR, "TEST_UPLOADS_JOB": arguments.job},
        )
        with home.instance() as instance, home.daemon():
            wait_for("all are registered", lambda: count(instance) == songs, TIMEOUT_S)
            registered_after = 1 + len(split(instance)[0])  # the tick that registered them goes on
            wait_for("nothing is new any more", lambda: len(split(instance)[1]) >= IDLE_TICKS, TIMEOUT_S)
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
    """The registered songs."""
    return len(instance.get_dynamic_partitions(SONGS_NAME))


def split(instance: dg.DagsterInstance) -> tuple[list[InstigatorTick], list[InstigatorTick]]:
    """The ticks so far that started runs, and those that found nothing new; the latest first."""
    ended = [
        tick
        for state in instance.all_instigator_state()
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
        if tick.end_timestamp is not None
    ]
    return [tick for tick in ended if tick.run_ids], [tick for tick in ended if not tick.run_ids]


def seconds(tick: InstigatorTick) -> float:
    """How long a tick took, from the daemon's decision to look until the last run was queued."""
    return (tick.end_timestamp or 0.0) - tick.timestamp


def write_uploads(store: Path, songs: int) -> None:
    """Empty files of several owners."""
    for owner in range(OWNERS):
        (store / "uploads" / f"owner {owner}").mkdir(parents=True)
    for number in range(songs):
        (store / "uploads" / f"owner {number % OWNERS}" / f"song {number:06}.wav").touch()
        if number % 100 == 0:
            (store / "uploads" / f"owner {number % OWNERS}" / f"cover {number:06}.jpg").touch()


if __name__ == "__main__":
    main()
