"""During a batch: its first songs are already visible, and a song that is uploaded later does not wait for it."""

import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import dagster as dg
import polars as pl
import psutil
from daemon import Home, wait_for
from platforms import PER_SONG, Platform, local_settings, song_bytes

from bandscope_dagster.orchestration.home import DAGSTER_YAML

SONGS = 16
LATE = "late.wav"


def decoders(daemon_pid: int) -> list[psutil.Process]:
    """The decoder processes of the runs in progress."""
    found: list[psutil.Process] = []
    for child in psutil.Process(daemon_pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "bandscope_dagster.audio.cage.fork_server" in child.cmdline():
                found.append(child)
    return found


def materialized(instance: dg.DagsterInstance, asset: str) -> list[str]:
    """The songs of all materializations of an asset; a song that was reported twice is in it twice."""
    found = instance.fetch_materializations(dg.AssetKey(asset), limit=10 * SONGS).records
    return [str(record.partition_key) for record in found]


def test_first_results_and_late_songs_do_not_wait_for_the_end_of_a_batch(tmp_path: Path) -> None:
    home = Home.make(
        tmp_path / "home",
        tmp_path / "store",
        yaml=DAGSTER_YAML,
        variables={"TEST_SENSORS": "new_uploads"},
        max_decode_silence_s=600,
    )
    uploads = tmp_path / "store" / "uploads"
    uploads.mkdir()
    for number in range(SONGS):
        (uploads / f"song {number}.wav").write_bytes(song_bytes(number, 1.0))
    last = PER_SONG[-1]
    with home.instance() as instance, home.daemon() as daemon:
        platform = Platform(local_settings(tmp_path / "store"), instance)
        (decoder,) = wait_for("the run reads its uploads", lambda: decoders(daemon.pid))
        wait_for("the first song is stored", lambda: list((tmp_path / "store" / last).glob("*.parquet")))
        decoder.suspend()  # from now on this test decides when the batch continues
        wait_for("the first song is done", lambda: materialized(instance, last))
        (batch,) = instance.get_runs()
        first = materialized(instance, last)[-1]
        for asset in PER_SONG:
            table = pl.read_parquet(tmp_path / "store" / asset / f"{first}.parquet")
            assert table.height and table["error"].null_count() == table.height
            assert platform.status(asset)[first] == "MATERIALIZED", "as the UI shows it"

        (uploads / LATE).write_bytes(song_bytes(SONGS, 1.0))
        wait_for("the late song is registered", lambda: len(platform.songs) == SONGS + 1)
        late = platform.songs[-1]
        wait_for("it has its row", (tmp_path / "store" / "songs" / f"{late}.parquet").exists)
        wait_for("it has its tags", lambda: late in materialized(instance, last))
        assert instance.get_runs(dg.RunsFilter([batch.run_id]))[0].status == dg.DagsterRunStatus.STARTED
        assert len(set(materialized(instance, last))) < SONGS, "the batch has not ended"

        decoder.send_signal(signal.SIGCONT)
        wait_for(
            "both runs have ended",
            lambda: [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 2,
        )
        for asset in PER_SONG:
            done = Counter(materialized(instance, asset))
            assert set(done) == set(platform.songs)
            assert set(done.values()) == {1}, "no song was done twice"
