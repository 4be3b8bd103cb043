"""The time from the end of a song's upload to its tags, with a running daemon, and the parts of that time.

    python -m benchmarks.latency [--songs 20] [--seconds 30] [--batch 64] [--late 5]

First the songs are uploaded one after the other, each when the last one is done and after a random pause, so that they
arrive at random points of the sensor's interval. The home is the one that `bandscope` creates (SQLite), with the
sensors as shipped and the embedded models on the CPU. A song's tags can be read when the file of its last table,
stem_instrument_tags, is in the store; all other times come from Dagster's own records.

Then songs are uploaded while a batch runs, one after each further part of the batch: in the default home, with two runs
at once, and in one with the limits of deploy/dagster.yaml, where one run at a time has the GPU. The last line is JSON.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import dagster as dg
import yaml
from rich.progress import Progress

from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.retry_backfill import daemon_is_alive
from bandscope_dagster.orchestration.sensors.new_uploads import INTERVAL_S, UPLOADS_SENSOR
from bandscope_dagster.pipeline.uploads import UPLOADS, list_uploads
from bandscope_dagster.storage.tables.schemas import STEM_INSTRUMENT_TAGS, TABLES, table_key
from benchmarks.measuring import ROOT, write_songs
from benchmarks.orchestration import daemon, settings_on
from tests.support.daemon import START_TIMEOUT_S, open_instance, wait_for

SONG_TIMEOUT_S: Final = 600.0
BATCH_TIMEOUT_S: Final = 3600.0
SEED: Final = 8

PARTS: Final = {
    "tick": f"wait for the sensor (every {INTERVAL_S} s)",
    "request": "the tick: listing, registering, creating the run",
    "queue": "the run in the queue",
    "start": "start of the run's process",
    "songs": "the step `songs`, and the start of `analyze`",
    "load": "loading the models",
    "analysis": "decoding, separating, tagging, storing",
}
UNTIL_SEEN: Final = "then, until the UI shows it"


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one song, from the end of its upload."""

    to_row: float  # until its row in `songs` can be read
    to_tags: float  # until all its tags can be read
    to_event: float  # until Dagster has an event for them
    parts: Mapping[str, float]  # of ``to_tags``, by PARTS


@dataclass(frozen=True, slots=True)
class Platform:
    """A home with a daemon, its store, and songs to upload."""

    instance: dg.DagsterInstance
    store: Path
    waiting: Iterator[Path]

    def upload(self) -> tuple[str, float]:
        """Upload the next song as `bandscope ingest` does; returns its id and the end of the upload (Unix time)."""
        path = next(self.waiting)
        key = f"{UPLOADS}/{path.name}"
        store = settings_on(self.store).open_store()
        with store.create(key) as pending:
            pending.write(path.read_bytes())
        ended = time.time()
        (song,) = (each.song_id for each in list_uploads(store).uploads if each.key == key)
        return song, ended

    def is_done(self, song: str) -> bool:
        """True if the song's last table is in the store."""
        return self._file(STEM_INSTRUMENT_TAGS.name, song).exists()

    def done(self) -> int:
        """The number of songs with their last table in the store."""
        folder = self.store / STEM_INSTRUMENT_TAGS.name
        return len(os.listdir(folder)) if folder.exists() else 0

    def latency(self, song: str, uploaded: float) -> Latency:
        """The times of a finished song, from Dagster's records and its files."""
        last = wait_for("the song's event", lambda: self._event(STEM_INSTRUMENT_TAGS.name, song), 60.0)
        run_id = last.run_id
        (run,) = self.instance.get_run_records(dg.RunsFilter([run_id]))
        ticked = self._tick_of(run.dagster_run)
        launched = self.instance.get_run_stats(run_id).launch_time
        (analyze,) = (step for step in self.instance.get_run_step_stats(run_id) if step.step_key == "analyze")
        began, created = run.start_time, run.create_timestamp.timestamp()
        if launched is None or began is None or analyze.start_time is None:
            raise SystemExit(f"run {run_id} did not start")
        tagged = self._file(STEM_INSTRUMENT_TAGS.name, song).stat().st_mtime
        # Of the separator and of the tagger, each recorded with the first table that needs it.
        load = sum(self._load_seconds(table, song) for table in ("stems", "instrument_tags"))
        return Latency(
            to_row=self._file("songs", song).stat().st_mtime - uploaded,
            to_tags=tagged - uploaded,
            to_event=last.timestamp - uploaded,
            parts={
                "tick": ticked - uploaded,
                "request": created - ticked,
                "queue": launched - created,
                "start": began - launched,
                "songs": analyze.start_time - began,
                "load": load,
                "analysis": tagged - analyze.start_time - load,
            },
        )

    def _file(self, table: str, song: str) -> Path:
        return self.store / table_key(TABLES[table], song)

    def _event(self, table: str, song: str) -> dg.EventLogRecord | None:
        filter_ = dg.AssetRecordsFilter(dg.AssetKey(table), asset_partitions=[song])
        found = self.instance.fetch_materializations(filter_, limit=1).records
        return found[0] if found else None

    def _load_seconds(self, table: str, song: str) -> float:
        record = self._event(table, song)
        event = record.asset_materialization if record else None
        value = event.metadata.get("load_seconds") if event else None
        return float(value.value) if isinstance(value, dg.FloatMetadataValue) and value.value else 0.0

    def _tick_of(self, run: dg.DagsterRun) -> float:
        """The start of the tick that requested a run (Unix time)."""
        for state in self.instance.all_instigator_state():
            if state.instigator_name == UPLOADS_SENSOR:
                for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id):
                    if run.run_id in tick.run_ids:
                        return tick.timestamp
        raise SystemExit(f"no tick requested run {run.run_id}")


@contextmanager
def platform(title: str, dagster_yaml: str, songs: int, seconds: float) -> Generator[Platform]:
    """Yield a new home with a daemon, the sensor turned on, an empty store, and rendered songs to upload."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, store, waiting = (Path(folder) / name for name in ("home", "store", "waiting"))
        home.mkdir()
        print(f"\n{title}: rendering {songs} songs of {seconds:g} s …", flush=True)
        write_songs(waiting, songs, seconds)
        (home / "dagster.yaml").write_text(dagster_yaml)
        environment = {
            "DAGSTER_HOME": str(home),
            "BANDSCOPE_STORAGE": str(store),
            "BANDSCOPE_DEVICE": "cpu",
        }
        os.environ["DAGSTER_HOME"] = str(home)
        with open_instance(home) as instance, daemon(home, environment):
            if "pools" in dagster_yaml:  # see deploy/README.md
                instance.event_log_storage.set_concurrency_slots("gpu", 1)
            wait_for("the daemon's heartbeat", lambda: daemon_is_alive(instance), START_TIMEOUT_S)
            program = Path(sys.executable).with_name("dagster")
            subprocess.run(
                [program, "sensor", "start", UPLOADS_SENSOR, "-m", "bandscope_dagster.definitions"],
                env=os.environ | environment,
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            yield Platform(instance, store, iter(sorted((waiting / UPLOADS).iterdir())))


def one_by_one(songs: int, seconds: float) -> list[Latency]:
    """Latencies of songs that arrive while nothing else runs."""
    found: list[Latency] = []
    pauses = random.Random(SEED)
    with platform("One song at a time", DAGSTER_YAML, songs, seconds) as here, Progress() as progress:
        task = progress.add_task("songs", total=songs)
        for _ in range(songs):
            time.sleep(pauses.uniform(0, INTERVAL_S))
            song, uploaded = here.upload()
            wait_for(f"{song} is done", partial(here.is_done, song), SONG_TIMEOUT_S)
            found.append(here.latency(song, uploaded))
            progress.console.print(f"{song}: {found[-1].to_tags:.1f} s")
            progress.advance(task)
    return found


def during_a_batch(title: str, dagster_yaml: str, batch: int, late: int, seconds: float) -> list[Latency]:
    """Latencies of ``late`` songs that arrive while a batch runs."""
    uploaded: dict[str, float] = {}
    with platform(title, dagster_yaml, batch + late, seconds) as here, Progress() as progress:
        task = progress.add_task("songs", total=batch + late)

        def reaches(count: int) -> bool:
            progress.update(task, completed=here.done())
            return here.done() >= count

        for _ in range(batch):
            here.upload()
        for number in range(late):
            # First when one song of the batch is done, then after each further part of it.
            wait_for(
                "progress of the batch", partial(reaches, 1 + number * batch // (late + 1)), BATCH_TIMEOUT_S
            )
            song, ended = here.upload()
            uploaded[song] = ended
        wait_for("all songs are done", partial(reaches, batch + late), BATCH_TIMEOUT_S)
        return [here.latency(song, ended) for song, ended in uploaded.items()]


def show(title: str, found: Sequence[Latency]) -> None:
    """Print the times and their parts."""
    totals = [each.to_tags for each in found]
    print(f"\n{title}: {len(found)} songs\n{'':54}{'median s':>10}{'worst s':>10}")
    rows: dict[str, list[float]] = {"upload to row in `songs`": [each.to_row for each in found]}
    rows["upload to tags"] = totals
    rows |= {f"  {text}": [each.parts[part] for each in found] for part, text in PARTS.items()}
    rows[f"  {UNTIL_SEEN}"] = [each.to_event - each.to_tags for each in found]
    for name, values in rows.items():
        print(f"{name:54}{statistics.median(values):10.1f}{max(values):10.1f}")


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description="Measure the time from upload to tags.")
    parser.add_argument("--songs", type=int, default=20, metavar="N", help="one by one (default: 20)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each song (default: 30)")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="songs of the batch (default: 64)")
    parser.add_argument(
        "--late", type=int, default=5, metavar="N", help="songs uploaded during the batch (default: 5)"
    )
    arguments = parser.parse_args()
    deployed: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
    del deployed["storage"]
    limited = yaml.safe_dump(deployed | yaml.safe_load(DAGSTER_YAML))
    single = one_by_one(arguments.songs, arguments.seconds)
    show("One song at a time", single)
    late: dict[str, list[Latency]] = {}
    for title, config in (
        ("During a batch, default home", DAGSTER_YAML),
        ("During a batch, limits of deploy/", limited),
    ):
        late[title] = during_a_batch(title, config, arguments.batch, arguments.late, arguments.seconds)
        show(title, late[title])
    print(f"\nload average of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    medians = [statistics.median(each.to_tags for each in found) for found in late.values()]
    report = {
        "median_s": statistics.median(each.to_tags for each in single),
        "worst_s": max(each.to_tags for each in single),
        "late_median_s": medians[0],
        "late_limited_median_s": medians[1],
    }
    print(json.dumps({name: round(value, 1) for name, value in report.items()}))


if __name__ == "__main__":
    main()
