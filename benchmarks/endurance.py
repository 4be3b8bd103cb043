"""1,500 tiny songs through the sensor, with one `kill -9` of everything and one full disk: all complete by themselves.

    nice python -m benchmarks.endurance [--songs N] [--disk MIB] [--full S]      # as root, for a disk in memory

A real daemon with the product's own code location, home and sensors. When a quarter of the songs is done, all of its
processes are killed, and started again. When half is done, the disk of the store becomes full, and gets its space back
once runs have failed and ``--full`` seconds are over. No command is given. At the end the counts of the UI, `bandscope
status`, the tables and the catalogs must agree song by song; one song in fifty is rejected.

It prints what happened when, and how old the catalogs became: from the end of a run until a refresh that began later
has ended. Runs that ended while the disk was full, or nothing ran, are left out of this. The last line is JSON. The
exit code is 1 if anything does not agree.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from daemon import Home, end_group, wait_for
from platforms import Platform, local_settings, song_bytes
from small_disks import fill, small_disk

from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.jobs import CATALOGS, PER_SONG
from bandscope_dagster.orchestration.run_tags import is_over_songs
from bandscope_dagster.pipeline.uploads import list_uploads

LOCATION: Final = "bandscope_dagster.definitions"
REJECTED_EVERY: Final = 50
LEFT_FREE: Final = 1_000_000  # bytes, when the disk is full
LOOK_EVERY_S: Final = 2.0
GIVE_UP_AFTER_S: Final = 2400.0  # without a new song
OLDEST_S: Final = 120.0  # of the catalogs, while runs end
STATUS: Final = re.compile(r"\b(ok|warning|partial|rejected|failed)\b")
COUNTS: Final = """query($assets: [AssetKeyInput!]) { assetNodes(assetKeys: $assets) { assetKey { path }
  partitionStats { numPartitions numMaterialized numFailed numMaterializing } } }"""


@dataclass
class Trial:
    """One run of the trial."""

    home: Home
    platform: Platform
    began: float = field(default_factory=time.time)
    moments: dict[str, float] = field(default_factory=dict[str, float])  # seconds since 1970
    problems: list[str] = field(default_factory=list[str])

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return Path(self.platform.settings.storage)

    def note(self, what: str) -> None:
        """Print what has happened, and keep its time."""
        self.moments[what] = time.time()
        print(f"{self.moments[what] - self.began:7.0f} s  {what}; {self.done()} songs done", flush=True)

    def done(self) -> int:
        """The number of songs that have all tables."""
        last = self.store / PER_SONG[-1]
        return len(os.listdir(last)) if last.exists() else 0

    def wait_until(self, songs: int) -> None:
        """Wait until so many songs are done."""
        known, changed = self.done(), time.monotonic()
        while known < songs:
            time.sleep(LOOK_EVERY_S)
            if (now := self.done()) != known:
                known, changed = now, time.monotonic()
            if time.monotonic() - changed > GIVE_UP_AFTER_S:
                raise SystemExit(
                    f"no song was done in the last {GIVE_UP_AFTER_S:g} s\n{self.home.printed()[-5000:]}"
                )

    def runs(self) -> list[dg.RunRecord]:
        """All runs."""
        return list(self.platform.instance.get_run_records())

    def lags(self) -> list[tuple[float, float]]:
        """For each ended run over songs: its end, and the seconds until the catalogs had its songs."""
        refreshed = [
            (run.start_time, run.end_time)
            for run in self.runs()
            if run.dagster_run.job_name == "refresh_catalogs"
            and run.dagster_run.status == dg.DagsterRunStatus.SUCCESS
            and run.start_time is not None
            and run.end_time is not None
        ]
        ends = [run.end_time for run in self.runs() if is_over_songs(run.dagster_run) and run.end_time]
        return [
            (end, min((until - end for began, until in refreshed if began >= end), default=float("inf")))
            for end in ends
        ]

    def expect(self, what: str, found: object, expected: object) -> None:
        """Note a disagreement."""
        if found != expected:
            self.problems.append(f"{what}: {str(found)[:500]} instead of {str(expected)[:500]}")


def upload(uploads: Path, songs: int) -> None:
    """Write the uploads: 0.35 to 0.5 s of sound each, or nothing at all."""
    uploads.mkdir()
    for number in range(songs):
        data = b"" if number % REJECTED_EVERY == 0 else song_bytes(number, 0.35 + number % 16 / 100)
        (uploads / f"song {number:05}.wav").write_bytes(data)


def start(home: Home) -> subprocess.Popen[bytes]:
    """Start the daemon as an operator does, with the code server and the runs in the same process group."""
    number = len(list(home.folder.glob("printed-*")))
    with (home.folder / f"printed-{number:03}.txt").open("wb") as output:
        return subprocess.Popen(
            [Path(sys.executable).with_name("dagster-daemon"), "run", "-m", LOCATION],
            env=os.environ | home.environment,
            cwd=home.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def command(home: Home, *words: str) -> str:
    """The output of a command on the home."""
    program = Path(sys.executable).with_name(words[0])
    environment = os.environ | home.environment | {"COLUMNS": "300"}
    done = subprocess.run(
        [program, *words[1:]], env=environment, cwd=home.folder, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def fill_disk(trial: Trial, seconds: float) -> None:
    """Fill the disk until runs have failed, for at least so many seconds; then make room."""
    ballast = fill(trial.store, LEFT_FREE)
    trial.note("the disk is full")
    since = trial.moments["the disk is full"]

    def failed() -> bool:
        return any(
            is_over_songs(run.dagster_run) and (run.end_time or 0.0) > since
            for run in trial.platform.instance.get_run_records(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
            )
        )

    wait_for("a run fails", failed, 1800, every_s=LOOK_EVERY_S)
    trial.note("a run has failed")
    time.sleep(max(0.0, since + seconds - time.time()))
    ballast.unlink()
    trial.note("the disk has room")


def all_settled(trial: Trial) -> bool:
    """True if every song is materialized, no run is going on, and the catalogs are newer than the last run."""
    if any(not run.dagster_run.is_finished for run in trial.runs()):
        return False
    counts = [Counter(trial.platform.status(asset).values()) for asset in PER_SONG]
    return counts == [{"MATERIALIZED": len(trial.platform.songs)}] * len(PER_SONG) and all(
        lag < float("inf") for _, lag in trial.lags()
    )


def compare(trial: Trial, expected: Mapping[str, str]) -> None:
    """Compare what everything says of each song with ``expected`` (song → status)."""
    songs = sorted(expected)
    for table in PER_SONG:
        files = sorted(path.stem for path in (trial.store / table).glob("*.parquet"))
        trial.expect(f"files of {table}", files, songs)
        trial.expect(f"partitions of {table}", set(trial.platform.status(table).values()), {"MATERIALIZED"})
    with trial.home.webserver() as server:
        found = server.ask(COUNTS, assets=[{"path": [asset]} for asset in PER_SONG])["assetNodes"]
    for node in found:
        counts = dict(numPartitions=len(songs), numMaterialized=len(songs), numFailed=0, numMaterializing=0)
        trial.expect(f"the UI's counts of {node['assetKey']['path'][0]}", node["partitionStats"], counts)
    lines = [line for line in command(trial.home, "bandscope", "status").splitlines() if line.split()]
    said = {
        line.split()[0]: word[1]
        for line in lines
        if line.split()[0] in expected and (word := STATUS.search(line.partition(" ")[2]))
    }
    trial.expect("bandscope status", sorted(said.items()), sorted(expected.items()))
    tables: dict[str, pl.DataFrame] = {
        name: pl.read_parquet(trial.store / name / f"{name}.parquet") for name in CATALOGS
    }
    rows = sorted(tables["song_catalog"].select("song_id", "status").iter_rows())
    trial.expect("song_catalog", rows, sorted(expected.items()))
    rejected = sorted(song for song, status in expected.items() if status == "rejected")
    trial.expect("song_errors", sorted(tables["song_errors"]["song_id"].unique()), rejected)
    strangers = set(tables["instrument_catalog"]["song_id"]) - (expected.keys() - set(rejected))
    trial.expect("songs of instrument_catalog that are not ok", strangers, set[str]())


def report(trial: Trial, songs: int) -> dict[str, Any]:
    """The figures."""
    moments = trial.moments
    dead = [
        (moments["everything is killed"], moments["the daemon is back"]),
        (moments["the disk is full"], moments["the disk has room"]),
    ]
    lags = [(end, lag) for end, lag in trial.lags() if not any(first <= end <= last for first, last in dead)]
    # A refresh that the kill or the full disk ended comes after it.
    calm = [lag for end, lag in lags if not any(end < first < end + lag for first, _ in dead)]
    trial.expect("catalogs that are older than two minutes", [lag for lag in calm if lag > OLDEST_S], [])
    kinds = Counter((run.dagster_run.job_name, run.dagster_run.status.value) for run in trial.runs())
    return {
        "songs": songs,
        "minutes": round((time.time() - trial.began) / 60, 1),
        "runs": {f"{job} {status}": count for (job, status), count in sorted(kinds.items())},
        "catalogs_oldest_s": round(max(calm), 1),
        "catalogs_oldest_across_faults_s": round(max(lag for _, lag in trial.lags()), 1),
        "problems": len(trial.problems),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the trial, and print what happened."""
    parser = argparse.ArgumentParser(
        description="1,500 tiny songs, one kill of everything and one full disk."
    )
    parser.add_argument("--songs", type=int, default=1500, metavar="N", help="default: 1500")
    parser.add_argument(
        "--disk", type=int, default=1024, metavar="MIB", help="size of the disk (default: 1024)"
    )
    parser.add_argument(
        "--full", type=float, default=120.0, metavar="S", help="at least so long (default: 120 s)"
    )
    chosen = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        small_disk(Path(folder) / "store", f"{chosen.disk}m") as store,
    ):
        home = Home.make(
            Path(folder) / "home",
            store,
            yaml=DAGSTER_YAML,
            location=LOCATION,
            step_retries=2,
            min_duration_s=0.3,
        )
        upload(store / "uploads", chosen.songs)
        with home.instance() as instance:
            trial = Trial(home, Platform(local_settings(store), instance))
            command(home, "dagster", "sensor", "start", "new_uploads", "-m", LOCATION)
            daemon = start(home)
            trial.note("the daemon starts")
            try:
                trial.wait_until(chosen.songs // 4)
                end_group(daemon)
                trial.note("everything is killed")
                time.sleep(5)
                daemon = start(home)
                trial.note("the daemon is back")
                trial.wait_until(chosen.songs // 2)
                fill_disk(trial, chosen.full)
                trial.wait_until(chosen.songs)
                trial.note("all songs have all tables")
                wait_for("all settles", lambda: all_settled(trial), GIVE_UP_AFTER_S, every_s=10)
                trial.note("all is settled")
            finally:
                end_group(daemon)
            uploads = list_uploads(trial.platform.store).uploads
            compare(trial, {each.song_id: "ok" if each.size else "rejected" for each in uploads})
            figures = report(trial, chosen.songs)
    print("\n".join(trial.problems))
    print(json.dumps(figures))
    sys.exit(bool(trial.problems))


if __name__ == "__main__":
    main()
