"""A run that is interrupted or killed: the next ``bandscope run`` completes it, and no file is half-written."""

import os
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
from command_processes import bandscope, finish, platform
from platforms import PER_SONG, calm_platform, song_bytes
from same_tables import assert_same_tables

SONGS = 4
SECONDS = 5.0  # of a song: a second of work, so that a run is in the middle when it is stopped


def test_an_interrupted_run_stops_and_is_completed_by_the_next_command(tmp_path: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    (store / "uploads").mkdir(parents=True)
    for number in range(SONGS):
        (store / "uploads" / f"song {number}.wav").write_bytes(song_bytes(number, SECONDS))

    victim = bandscope(store, home, "run")
    while victim.poll() is None and not list((store / "stems").glob("*.parquet")):
        time.sleep(0.02)
    victim.send_signal(signal.SIGINT)  # Ctrl-C
    printed, _ = victim.communicate(timeout=600)

    assert victim.returncode == 1
    assert "interrupted" in printed and "Traceback" not in printed
    done = len(list((store / "stems").glob("*.parquet")))
    assert 1 <= done < SONGS, "the run did not stop before its end"
    assert not list((store / ".pending").iterdir()), "a half-written file is left"
    finish(bandscope(store, home, "run"))
    assert len(list((store / "stems").glob("*.parquet"))) == SONGS


def test_a_killed_run_is_completed_by_the_next_command(tmp_path: Path) -> None:
    uploads = tmp_path / "killed" / "uploads"
    uploads.mkdir(parents=True)
    for number in range(SONGS):
        (uploads / f"song {number}.wav").write_bytes(song_bytes(number, SECONDS))
    shutil.copytree(tmp_path / "killed", tmp_path / "calm")  # keeps the times, and therefore the song ids

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
        pq.ParquetFile(path).read()  # raises if the file is torn

    printed = finish(bandscope(tmp_path / "killed", tmp_path / "killed-home", "run"))

    assert "is gone; its songs can be computed again" in printed
    killed = platform(tmp_path / "killed", tmp_path / "killed-home")
    with calm_platform(tmp_path / "calm") as calm:
        assert_same_tables(killed, calm)
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
