"""Our event log against Dagster's own: the cost of creating a run over 64 songs, and of reporting their events.

    python -m benchmarks.event_log [--registered N] [--rounds N]

Each side is a new home in its own process. The run has our tables and checks, but computes nothing: only events remain,
with the metadata, versions and look-ups of a real run. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from assets.analysis import DEPENDENCIES
from assets.checks import ANALYSIS_CHECKS
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.partitions import SONGS_NAME, SONGS_PARTITIONS
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG
from bandscope_dagster.orchestration.song_events import Upstream
from benchmarks.measuring import Spent, median_ratio, spent, spread

SONGS = 64  # of one run
METADATA = {
    "dagster/uri": "/store/stems/song.parquet",
    "dagster/partition_row_count": 21,
    **{f"number {place}": place / 7 for place in range(8)},
}
PICTURE = "x" * 8000  # bytes of a song's picture


@dg.multi_asset(
    name="events",
    specs=[dg.AssetSpec(table, skippable=True, deps=deps) for table, deps in DEPENDENCIES.items()],
    check_specs=[spec for specs in ANALYSIS_CHECKS.values() for spec in specs],
    can_subset=True,
    partitions_def=SONGS_PARTITIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def events(context: dg.AssetExecutionContext) -> Iterator[Any]:
    """The events of `analyze` for each song."""
    upstream = Upstream(context)
    for song in context.partition_keys:
        for table, deps in DEPENDENCIES.items():
            metadata = METADATA | ({"picture": dg.MetadataValue.md(PICTURE)} if table == "stems" else {})
            versions = {"dagster/data_version": "1"} | upstream.version_tags(deps, song)
            yield dg.AssetMaterialization(table, partition=song, metadata=metadata, tags=versions)
            upstream.made(table, song)
            for spec in ANALYSIS_CHECKS[table]:
                yield dg.AssetCheckEvaluation(
                    asset_key=spec.asset_key, check_name=spec.name, partition=song, passed=True
                )
        upstream.forget(song)


def measure(ours: bool, registered: int) -> tuple[Spent, Spent]:
    """The time to create a run, and to execute one, in a new home with ``registered`` songs."""
    config = yaml.safe_load(DAGSTER_YAML)
    if not ours:
        del config["event_log_storage"]
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "dagster.yaml").write_text(yaml.safe_dump(config))
        os.environ["DAGSTER_HOME"] = home
        songs = [f"song-{number:06}" for number in range(registered)]
        batch = songs[-SONGS:]
        tags = {RANGE_START_TAG: batch[0], RANGE_END_TAG: batch[-1]}
        with dg.DagsterInstance.from_config(home) as instance:
            instance.add_dynamic_partitions(SONGS_NAME, songs)
            job = dg.Definitions([events]).resolve_implicit_global_asset_job_def()
            created = spent(lambda: instance.create_run_for_job(job, tags=tags))
            quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
            return created, spent(
                lambda: dg.materialize([events], instance=instance, tags=tags, run_config=quiet)
            )


def main() -> None:
    """Measure both sides in turn and print the times."""
    parser = argparse.ArgumentParser(description="Measure our event log against Dagster's own.")
    parser.add_argument(
        "--registered", type=int, default=SONGS, metavar="N", help=f"songs (default: {SONGS})"
    )
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="default: 2")
    arguments = parser.parse_args()
    found: dict[bool, list[tuple[Spent, Spent]]] = {True: [], False: []}
    for _ in range(arguments.rounds):
        for ours, times in found.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                times.append(process.submit(measure, ours, arguments.registered).result())
    report: dict[str, float] = {}
    for place, part in enumerate(("create", "events")):
        for unit in ("wall", "cpu"):
            ours, theirs = ([getattr(times[place], unit) for times in found[side]] for side in (True, False))
            print(f"{part}, {unit} s: ours {spread(ours)}, Dagster's {spread(theirs)}")
            report[f"{part}_{unit}_ratio"] = round(median_ratio(theirs, ours), 1)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
