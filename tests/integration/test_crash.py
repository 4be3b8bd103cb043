"""A machine that dies in the middle of a run: the next ``bandscope run`` completes it, and nothing is half-written."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from daemon import open_instance
from platforms import PER_SONG, WHEN, Platform, local_settings, song_bytes
from polars.testing import assert_frame_equal

from bandscope_dagster.audio.flac import decode_flac

SONGS = 4


def bandscope(store: Path, home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line on a store and a Dagster home."""
    environment = os.environ | {
        "BANDSCOPE_STORAGE": str(store),
        "BANDSCOPE_DEVICE": "cpu",
        "DAGSTER_HOME": str(home),
        "COLUMNS": "200",
    }
    command = [str(Path(sys.executable).with_name("bandscope")), *arguments]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell starts its background jobs, and so perhaps this test, with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command that must succeed; returns what it printed."""
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    return printed


def platform(store: Path, home: Path) -> Platform:
    """What the command line left behind."""
    return Platform(local_settings(store), open_instance(home))


def test_an_interrupted_run_stops_and_is_completed_by_the_next_command(tmp_path: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    (store / "uploads").mkdir(parents=True)
    for number in range(SONGS):
        (store / "uploads" / f"song {number}.wav").write_bytes(song_bytes(number, seconds=12.0))

    victim = bandscope(store, home, "run")
    while victim.poll() is None and not list((store / "stems").glob("*.parquet")):
        time.sleep(0.02)
    victim.send_signal(signal.SIGINT)  # Ctrl-C
    printed, _ = victim.communicate(timeout=60)

    assert victim.returncode == 1
    assert "interrupted" in printed and "Traceback" not in printed
    done = len(list((store / "stems").glob("*.parquet")))
    assert 1 <= done < SONGS, "it stopped"
    assert not list((store / ".pending").iterdir()), "and left nothing half-written"
    finish(bandscope(store, home, "run"))
    assert len(list((store / "stems").glob("*.parquet"))) == SONGS


def assert_same_tables(killed: Platform, calm: Platform, but: Sequence[str] = ()) -> None:
    """The same rows in every table, ``but`` for some columns; models in two processes may differ in their last bit."""
    assert killed.digests().keys() == calm.digests().keys()
    for table in PER_SONG:
        ours, theirs = (place.table(table).drop(*WHEN, *but, strict=False) for place in (killed, calm))
        if "audio" in ours.columns:
            for mine, other in zip(ours.iter_rows(named=True), theirs.iter_rows(named=True), strict=True):
                samples = [decode_flac(row["audio"]["bytes"], row["gain"]) for row in (mine, other)]
                np.testing.assert_allclose(*samples, rtol=0, atol=2 / 2**15)  # two steps of 16 bits
            ours, theirs = ours.drop("audio"), theirs.drop("audio")
        assert_frame_equal(ours, theirs, check_exact=False, rel_tol=1e-3, abs_tol=1e-3)


def test_a_killed_run_is_completed_by_the_next_command(tmp_path: Path) -> None:
    uploads = tmp_path / "killed" / "uploads"
    uploads.mkdir(parents=True)
    for number in range(SONGS):
        (uploads / f"song {number}.wav").write_bytes(song_bytes(number, seconds=12.0))
    shutil.copytree(tmp_path / "killed", tmp_path / "calm")  # keeps the times, and so the song ids
    finish(bandscope(tmp_path / "calm", tmp_path / "calm-home", "run"))

    victim = bandscope(tmp_path / "killed", tmp_path / "killed-home", "run")
    stems = tmp_path / "killed" / "stems"
    while victim.poll() is None and len(list(stems.glob("*.parquet"))) < 2:
        time.sleep(0.02)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    done_before = {path.name for path in stems.glob("*.parquet")}
    assert 2 <= len(done_before) < SONGS
    for path in (tmp_path / "killed").rglob("*.parquet"):
        pq.ParquetFile(path).read()  # whole, or not there

    printed = finish(bandscope(tmp_path / "killed", tmp_path / "killed-home", "run"))

    assert "had died" in printed
    killed = platform(tmp_path / "killed", tmp_path / "killed-home")
    assert_same_tables(killed, platform(tmp_path / "calm", tmp_path / "calm-home"))
    for asset in PER_SONG:
        assert set(killed.status(asset).values()) == {"MATERIALIZED"}
    runs = killed.instance.get_runs()
    assert sorted(run.status.value for run in runs) == ["FAILURE", "SUCCESS", "SUCCESS"]
    per_song = next(
        run for run in runs if run.status.value == "SUCCESS" and "stems" in str(run.asset_selection)
    )
    events = killed.events(per_song.run_id, "stems")
    separated = {f"{song}.parquet" for song, event in events.items() if not event.metadata["reused"].value}
    assert separated == {f"{song}.parquet" for song in killed.songs} - done_before
    strays = [
        path for path in (tmp_path / "killed").rglob("*") if path.is_file() and path.suffix != ".parquet"
    ]
    assert [path.parent for path in strays] == [uploads] * SONGS

    assert "are done" in finish(bandscope(tmp_path / "killed", tmp_path / "killed-home", "run"))
