"""Dagster's cost per song: a backfill through a real daemon, on SQLite and on PostgreSQL.

    python -m benchmarks.orchestration [--songs N] [--songs-per-run N] [--database sqlite|postgres]

It uploads many copies of one short song (each copy is a song). First the library alone does the work of the two steps,
batch after batch, each in a new process, without Dagster. Then one backfill over all tables computes the same songs,
with a normal daemon and deploy/dagster.yaml; for SQLite without the file's ``storage``.

Overhead is the time from the request of the backfill to the end of its last run, minus the time inside the ops: the
daemon's loops, the start of processes, and the work of a run around its steps. The runs follow each other (a pool of
one), so no run hides the cost of another. The time of the ops beyond the library alone (events, metadata and logs, and
the cores that these take from the library) is Dagster's too, and has its own line. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dagster as dg
import numpy as np
import soundfile
import yaml
from rich.progress import Progress, track

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.jobs import PER_SONG
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads, song_states
from bandscope_dagster.orchestration.private_api import BulkActionStatus
from bandscope_dagster.orchestration.resources import Models
from bandscope_dagster.orchestration.retry_backfill import daemon_is_alive, retry_songs
from bandscope_dagster.pipeline.analyze import analyze_batch
from bandscope_dagster.pipeline.outcomes import SongAnalyzed
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES, SongPlanner
from bandscope_dagster.pipeline.uploads import UPLOADS, list_uploads
from bandscope_dagster.pipeline.validate import check_songs
from bandscope_dagster.settings import Settings
from benchmarks.measuring import ROOT
from scripts.demo_songs import render
from tests.support.daemon import START_TIMEOUT_S, end_group, wait_for
from tests.support.postgres import run_postgres

SONG_S: Final = 0.6
LOOK_EVERY_S: Final = 2.0
GIVE_UP_AFTER_S: Final = 1800.0  # without a new song

PARTS: Final = {
    "request": "until the daemon checked (every 30 s) and made a run",
    "queue": "no run in progress: creating runs, the queue's loop",
    "start": "start of a run's process",
    "runs": "in a run, outside its steps",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Times of one backfill, in seconds."""

    songs: int
    runs: int
    wall: float
    inside: float  # the ops
    work: float  # the library alone
    parts: Mapping[str, float]  # the time outside the ops, by PARTS

    @property
    def overhead_ms(self) -> float:
        """Milliseconds per song outside the ops."""
        return 1000 * (self.wall - self.inside) / self.songs

    @property
    def reporting_ms(self) -> float:
        """Milliseconds per song inside the ops, beyond the library alone."""
        return 1000 * (self.inside - self.work) / self.songs


def upload(store: Path, songs: int) -> None:
    """Put copies of one rendered song into the store's uploads."""
    _, stems = render(0)
    mixture = np.sum(list(stems.values()), axis=0)
    folder = store / UPLOADS
    folder.mkdir(parents=True)
    first = folder / "song 0.flac"
    soundfile.write(first, mixture[:, : round(SONG_S * SAMPLE_RATE)].T, SAMPLE_RATE, "PCM_16")
    for number in range(1, songs):
        shutil.copy(first, folder / f"song {number}.flac")


def settings_on(store: Path) -> Settings:
    """The settings of both sides: the embedded models on the CPU."""
    return Settings(storage=str(store), device="cpu")


def work_through(store: Path, batch: int, songs_per_run: int) -> float:
    """Do the library's work of one run in this process; returns its seconds."""
    settings = settings_on(store)
    objects = settings.open_store()
    began = time.perf_counter()
    uploads = list_uploads(objects).by_song
    keys = list(uploads)[batch * songs_per_run :][:songs_per_run]
    checked = list(check_songs(keys, uploads, objects, settings.limits, SongPlanner("alone"), reuse=False))
    analyzed = list(
        analyze_batch(keys, ANALYSIS_TABLES, objects, Models(settings), settings, "alone", reuse=False)
    )
    seconds = time.perf_counter() - began
    if any(song.error for song in checked) or not all(isinstance(song, SongAnalyzed) for song in analyzed):
        raise SystemExit("a song failed without Dagster")
    return seconds


def alone(songs: int, songs_per_run: int) -> float:
    """The library's seconds for all songs, without Dagster."""
    total = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        upload(store, songs)
        for batch in track(range(-(-songs // songs_per_run)), "The library alone …"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                total += process.submit(work_through, store, batch, songs_per_run).result()
    return total


@contextmanager
def daemon(home: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a Dagster daemon on a home, with its code server and its runs, while the block runs."""
    program = Path(sys.executable).with_name("dagster-daemon")
    with (home / "daemon.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "run", "-m", "bandscope_dagster.definitions"],
            env=os.environ | environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield
        finally:
            end_group(process)


def wait(instance: dg.DagsterInstance, backfill_id: str, done: Path, songs: int, title: str) -> None:
    """Show the progress of the backfill until it ends."""
    with Progress() as progress:
        task = progress.add_task(title, total=songs)
        count, changed = 0, time.monotonic()
        while True:
            found = instance.get_backfill(backfill_id)
            if found is None or found.status != BulkActionStatus.REQUESTED:
                return
            # Files are counted, because queries to Dagster would add load that no operator causes.
            now = len(os.listdir(done)) if done.exists() else 0
            if now != count:
                count, changed = now, time.monotonic()
                progress.update(task, completed=count)
            if time.monotonic() - changed > GIVE_UP_AFTER_S:
                raise SystemExit(f"no song was finished in the last {GIVE_UP_AFTER_S:g} s")
            time.sleep(LOOK_EVERY_S)


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def figures(
    instance: dg.DagsterInstance, backfill_id: str, requested: float, work: float, songs: int
) -> Figures:
    """The times of a backfill from Dagster's records; ``work`` is the seconds of the library alone."""
    runs = instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
    lived: list[tuple[float, float]] = []  # from the start of the process
    ran: list[tuple[float, float]] = []
    stepped: list[tuple[float, float]] = []
    for record in runs:
        run_id, began, ended = record.dagster_run.run_id, record.start_time, record.end_time
        launched = instance.get_run_stats(run_id).launch_time
        if launched is None or began is None or ended is None:
            raise SystemExit(f"run {run_id} did not start")
        lived.append((launched, ended))
        ran.append((began, ended))
        for step in instance.get_run_step_stats(run_id):
            if step.start_time is not None and step.end_time is not None:
                stepped.append((step.start_time, step.end_time))
    first, last = min(record.create_timestamp.timestamp() for record in runs), max(end for _, end in ran)
    wall = last - requested
    return Figures(
        songs=songs,
        runs=len(runs),
        wall=wall,
        inside=covered(stepped),
        work=work,
        parts={
            "request": first - requested,
            "queue": wall - (first - requested) - covered(lived),
            "start": covered(lived) - covered(ran),
            "runs": covered(ran) - covered(stepped),
        },
    )


def measure(title: str, config: Mapping[str, Any], songs: int, songs_per_run: int, work: float) -> Figures:
    """Measure one backfill over new songs, in a new home with ``config`` as its dagster.yaml."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        home, store = Path(folder) / "home", Path(folder) / "store"
        home.mkdir()
        upload(store, songs)
        (home / "dagster.yaml").write_text(yaml.safe_dump(dict(config)))
        os.environ["DAGSTER_HOME"] = str(home)
        environment = {
            "DAGSTER_EVENT_BATCH_SIZE": "500",  # see deploy/README.md
            "BANDSCOPE_STORAGE": str(store),
            "BANDSCOPE_DEVICE": "cpu",
            "BANDSCOPE_SONGS_PER_RUN": str(songs_per_run),
        }
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        register_uploads(instance, list_uploads(settings_on(store).open_store()))
        stack.enter_context(daemon(home, environment))
        wait_for("the daemon's heartbeat", lambda: daemon_is_alive(instance), START_TIMEOUT_S)
        requested = time.time()
        settings = settings_on(store).model_copy(update={"songs_per_run": songs_per_run})
        backfill_id = retry_songs(instance, settings.open_store(), PER_SONG, settings).backfill_id
        if backfill_id is None:
            raise SystemExit("the backfill has no songs")
        wait(instance, backfill_id, store / PER_SONG[-1], songs, title)
        names = list(instance.get_dynamic_partitions(SONGS_NAME))
        unfinished = song_states(instance, names, PER_SONG).unfinished
        if unfinished or len(names) != songs:
            sys.stderr.write((home / "daemon.log").read_text())
            raise SystemExit(f"{title}: {len(unfinished)} of {len(names)} songs are not complete")
        return figures(instance, backfill_id, requested, work, songs)


def show(title: str, found: Figures, songs_per_run: int) -> None:
    """Print the parts of the time."""
    print(
        f"\n{title}: {found.songs} songs of {SONG_S:g} s, all complete, in {found.runs} runs of {songs_per_run}"
    )
    print(f"{'':54}{'s':>9}{'ms/song':>9}")
    rows = {"wall": found.wall, "inside the ops": found.inside, "of these, the library alone": found.work}
    rows |= {PARTS[part]: seconds for part, seconds in found.parts.items()}
    rows |= {
        "overhead": found.wall - found.inside,
        "in the ops, beyond the library": found.inside - found.work,
    }
    for name, seconds in rows.items():
        print(f"{name:54}{seconds:9.1f}{1000 * seconds / found.songs:9.1f}")


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description="Measure Dagster's cost per song.")
    parser.add_argument("--songs", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--songs-per-run", type=int, default=250, metavar="N", help="default: 250")
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="default: both")
    arguments = parser.parse_args()
    config: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text())
    report: dict[str, float] = {}
    work = alone(arguments.songs, arguments.songs_per_run)
    if arguments.database != "postgres":
        on_sqlite = {key: value for key, value in config.items() if key != "storage"} | yaml.safe_load(
            DAGSTER_YAML
        )
        found = measure("SQLite", on_sqlite, arguments.songs, arguments.songs_per_run, work)
        show("SQLite", found, arguments.songs_per_run)
        report["overhead_ms_per_song_sqlite"] = found.overhead_ms
        report["reporting_ms_per_song_sqlite"] = found.reporting_ms
    if arguments.database != "sqlite":
        with run_postgres() as server:
            os.environ |= server.database().environment()
            found = measure("PostgreSQL", config, arguments.songs, arguments.songs_per_run, work)
        show("PostgreSQL", found, arguments.songs_per_run)
        report["overhead_ms_per_song_postgres"] = found.overhead_ms
        report["reporting_ms_per_song_postgres"] = found.reporting_ms
    print(f"load average of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(json.dumps({name: round(value, 1) for name, value in report.items()}))


if __name__ == "__main__":
    main()
