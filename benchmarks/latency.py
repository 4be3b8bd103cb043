"""The time from the end of a song's upload to its tags, by `bandscope run --watch` and by the daemon, and its parts.

    python -m benchmarks.latency [--quick] [--songs 20] [--seconds 30] [--batch 32] [--late 20]

Songs are uploaded one after the other, each when the last one is done and after a random pause, so that they arrive at
random points of an interval. Then songs are uploaded at random times while a batch is computed. Both with a store in a
local folder, and on a real S3 server on this machine. The home is the one that `bandscope` creates (SQLite), with the
sensors as shipped, and the embedded models on the CPU. A song's tags can be read when the file of its last table,
stem_instrument_tags, is in the store; the other times come from Dagster's own records. `--quick` uploads six songs to
each path, one after the other, to a local folder. The last line is JSON.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import dagster as dg
from rich.progress import track

from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.retry_backfill import daemon_is_alive
from bandscope_dagster.orchestration.run_tags import is_over_songs
from bandscope_dagster.orchestration.sensors.new_uploads import EVERY_S, UPLOADS_SENSOR
from bandscope_dagster.pipeline.uploads import UPLOADS, list_uploads
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import STEM_INSTRUMENT_TAGS, table_key
from benchmarks.measuring import ROOT, write_songs
from benchmarks.orchestration import daemon
from tests.support.daemon import START_TIMEOUT_S, end_group, open_instance, wait_for
from tests.support.s3_server import run_s3_server

Way = Literal["watch", "daemon"]
Kind = Literal["local", "S3"]

SONG_TIMEOUT_S: Final = 600.0
BATCH_TIMEOUT_S: Final = 3600.0
LOOK_EVERY_S: Final = 0.05
SEED: Final = 8

PARTS: Final = {
    "seen": "until a run is created: waiting for a look, the look",
    "start": "until the run's first step: the queue, a process, imports",
    "songs": "the step `songs`, and the start of `analyze`",
    "load": "of `analyze`: waiting for the models",
    "analysis": "of `analyze`: decoding, separating, tagging, storing",
}


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one song, from the end of its upload."""

    to_tags: float  # until all its tags can be read
    parts: Mapping[str, float]  # of ``to_tags``, by PARTS


@dataclass(frozen=True, slots=True)
class Place:
    """A home in which uploads are processed, its store, and songs to upload."""

    instance: dg.DagsterInstance
    store: ObjectStore
    waiting: Iterator[Path]

    def upload(self) -> tuple[str, float]:
        """Upload the next song as `bandscope ingest` does; returns its id and the end of the upload (Unix time)."""
        path = next(self.waiting)
        key = f"{UPLOADS}/{path.name}"
        with self.store.create(key) as pending:
            pending.write(path.read_bytes())
        ended = time.time()
        (song,) = (each.song_id for each in list_uploads(self.store).uploads if each.key == key)
        return song, ended

    def is_done(self, song: str) -> bool:
        """True if the song's last table is in the store."""
        return self.store.head(table_key(STEM_INSTRUMENT_TAGS, song)) is not None

    def latency(self, song: str, uploaded: float, tagged: float) -> Latency:
        """The times of a finished song (Unix times), from Dagster's records."""
        event = wait_for("the song's event", lambda: self._event(STEM_INSTRUMENT_TAGS.name, song), 60.0)
        (run,) = self.instance.get_run_records(dg.RunsFilter([event.run_id]))
        began = {
            step.step_key: step.start_time or 0.0
            for step in self.instance.get_run_step_stats(event.run_id, ["songs", "analyze"])
        }
        created = run.create_timestamp.timestamp()
        # Of the separator and of the tagger, each recorded with the first table that needs it.
        load = sum(self._load_seconds(table, song) for table in ("stems", "instrument_tags"))
        return Latency(
            to_tags=tagged - uploaded,
            parts={
                "seen": created - uploaded,
                "start": began["songs"] - created,
                "songs": began["analyze"] - began["songs"],
                "load": load,
                "analysis": tagged - began["analyze"] - load,
            },
        )

    def _event(self, table: str, song: str) -> dg.EventLogRecord | None:
        filter_ = dg.AssetRecordsFilter(dg.AssetKey(table), asset_partitions=[song])
        found = self.instance.fetch_materializations(filter_, limit=1).records
        return found[0] if found else None

    def _load_seconds(self, table: str, song: str) -> float:
        record = self._event(table, song)
        event = record.asset_materialization if record else None
        value = event.metadata.get("load_seconds") if event else None
        return float(value.value) if isinstance(value, dg.FloatMetadataValue) and value.value else 0.0


@contextmanager
def place(path: Way, kind: Kind, songs: int, seconds: float) -> Generator[Place]:
    """Yield a new home with a process that takes uploads, an empty store, and rendered songs to upload."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        home, waiting = folder / "home", folder / "waiting"
        home.mkdir()
        write_songs(waiting, songs, seconds)
        (home / "dagster.yaml").write_text(DAGSTER_YAML)
        if kind == "S3":
            s3 = stack.enter_context(run_s3_server(folder)).place()
            store, variables = s3.open(), {"BANDSCOPE_STORAGE": s3.url, **s3.environment()}
        else:
            store = open_store(str(folder / "store"))
            variables = {"BANDSCOPE_STORAGE": str(folder / "store")}
        variables |= {"BANDSCOPE_DEVICE": "cpu", "DAGSTER_HOME": str(home)}
        instance = stack.enter_context(open_instance(home))
        stack.enter_context(
            _watch(home, variables) if path == "watch" else _daemon(instance, home, variables)
        )
        yield Place(instance, store, iter(sorted((waiting / UPLOADS).iterdir())))


@contextmanager
def _watch(home: Path, variables: Mapping[str, str]) -> Generator[None]:
    program = Path(sys.executable).with_name("bandscope")
    log = home / "watch.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "run", "--watch"],
            env=os.environ | variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_for("it watches", lambda: b"Watching" in log.read_bytes(), START_TIMEOUT_S)
            time.sleep(5)  # the models are loaded meanwhile
            yield
        finally:
            end_group(process)


@contextmanager
def _daemon(instance: dg.DagsterInstance, home: Path, variables: Mapping[str, str]) -> Generator[None]:
    with daemon(home, variables):
        wait_for("the daemon's heartbeat", lambda: daemon_is_alive(instance), START_TIMEOUT_S)
        program = Path(sys.executable).with_name("dagster")
        subprocess.run(
            [program, "sensor", "start", UPLOADS_SENSOR, "-m", "bandscope_dagster.definitions"],
            env=os.environ | variables,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        yield


def one_by_one(path: Way, kind: Kind, songs: int, seconds: float) -> list[Latency]:
    """Latencies of songs that arrive while nothing else runs."""
    found: list[Latency] = []
    pauses = random.Random(SEED)
    with place(path, kind, songs, seconds) as here:
        for _ in track(range(songs), f"{path}, {kind}, one by one", transient=True):
            time.sleep(pauses.uniform(0, EVERY_S))
            song, uploaded = here.upload()
            wait_for(f"{song} is done", lambda: here.is_done(song), SONG_TIMEOUT_S, every_s=LOOK_EVERY_S)  # noqa: B023
            found.append(here.latency(song, uploaded, time.time()))
            wait_for("its run is over", lambda: _is_idle(here.instance), SONG_TIMEOUT_S)
    return found


def _is_idle(instance: dg.DagsterInstance) -> bool:
    """True if no run over songs goes on."""
    return all(run.is_finished for run in instance.get_runs(limit=5) if is_over_songs(run))


def during_a_batch(path: Way, kind: Kind, batch: int, late: int, seconds: float) -> list[Latency]:
    """Latencies of ``late`` songs that arrive at random times while a batch is computed."""
    arrivals = random.Random(SEED)
    uploaded: dict[str, float] = {}
    tagged: dict[str, float] = {}
    with place(path, kind, batch + late, seconds) as here:
        of_batch = [here.upload()[0] for _ in range(batch)]
        wait_for("the batch has begun", lambda: here.is_done(of_batch[0]), BATCH_TIMEOUT_S)
        due = time.monotonic()
        until = time.monotonic() + BATCH_TIMEOUT_S
        while len(tagged) < late and time.monotonic() < until:
            if len(uploaded) < late and time.monotonic() >= due:
                song, ended = here.upload()
                uploaded[song] = ended
                due = time.monotonic() + arrivals.uniform(0, 2 * seconds / 6)
            for song in uploaded.keys() - tagged.keys():
                if here.is_done(song):
                    tagged[song] = time.time()
            time.sleep(LOOK_EVERY_S)
        return [here.latency(song, uploaded[song], ended) for song, ended in tagged.items()]


def show(title: str, found: Sequence[Latency]) -> None:
    """Print the times and their parts."""
    print(f"\n{title}: {len(found)} songs\n{'':62}{'median s':>10}{'worst s':>10}")
    rows = {"upload to tags": [each.to_tags for each in found]}
    rows |= {f"  {text}": [each.parts[part] for each in found] for part, text in PARTS.items()}
    for name, values in rows.items():
        print(f"{name:62}{statistics.median(values):10.1f}{max(values):10.1f}", flush=True)


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description="Measure the time from upload to tags.")
    parser.add_argument("--quick", action="store_true", help="six songs to each path, one by one, no S3")
    parser.add_argument("--songs", type=int, default=20, metavar="N", help="one by one (default: 20)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each song (default: 30)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="songs of the batch (default: 32)")
    parser.add_argument(
        "--late", type=int, default=20, metavar="N", help="songs uploaded during the batch (default: 20)"
    )
    arguments = parser.parse_args()
    songs = 6 if arguments.quick else arguments.songs
    kinds: tuple[Kind, ...] = ("local",) if arguments.quick else ("local", "S3")
    report: dict[str, float] = {}
    paths: tuple[Way, ...] = ("watch", "daemon")
    for path in paths:
        for kind in kinds:
            alone = one_by_one(path, kind, songs, arguments.seconds)
            show(f"{path}, {kind}, one by one", alone)
            if kind == "local":
                times = [each.to_tags for each in alone]
                report |= {f"{path}_median_s": statistics.median(times), f"{path}_worst_s": max(times)}
            if not arguments.quick:
                late = during_a_batch(path, kind, arguments.batch, arguments.late, arguments.seconds)
                show(f"{path}, {kind}, while {arguments.batch} songs are computed", late)
    print(f"\nload average of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(json.dumps({name: round(value, 1) for name, value in report.items()}))


if __name__ == "__main__":
    main()
