"""A run that is interrupted or killed: the next ``bandscope run`` completes it, and no file is half-written."""

import os
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
from command_processes import bandscope, finish, platform
from platforms import PER_SONG, calm_platform, song_bytes
from pseudo_terminal import CTRL_C, PseudoTerminal
from same_tables import assert_same_tables

SONGS = 4
SECONDS = 5.0  # of a song: a second of work, so that a run is in the middle when it is stopped


def test_a_run_in_a_terminal_shows_its_songs_stops_at_ctrl_c_and_is_completed_by_the_next(
    tmp_path: Path,
) -> None:
    """The second song has three blocks; Ctrl-C is pressed when the models have got the first of them."""
    store, home = tmp_path / "store", tmp_path / "home"
    (store / "uploads").mkdir(parents=True)
    lengths = {"a.wav": SECONDS, "b.wav": 25.0, "c.wav": SECONDS}
    for name, seconds in lengths.items():
        (store / "uploads" / name).write_bytes(song_bytes(int(seconds), seconds))

    variables = {"BANDSCOPE_STORAGE": str(store), "BANDSCOPE_DEVICE": "cpu", "DAGSTER_HOME": str(home)}
    terminal = PseudoTerminal("run", **variables)
    terminal.read_until(r"checking .*0/3")
    shown = terminal.read_until(r"b\.wav .*0:10 of 0:25")
    assert "a.wav" in shown and "1/3" in shown, "the bars do not move during a step"
    terminal.press(CTRL_C)
    terminal.read_until("Stopping after the current segment")
    code = terminal.end()

    assert code == 1
    assert "interrupted" in terminal.printed and "Traceback" not in terminal.printed
    stored = {path.name.partition("-")[0] for path in (store / "stems").glob("*.parquet")}
    assert stored == {"a"}, "the run did not stop after the segment"
    assert not list((store / ".pending").iterdir()), "a half-written file is left"
    finish(bandscope(store, home, "run"))
    assert len(list((store / "stems").glob("*.parquet"))) == len(lengths)


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
    store = tmp_path / "killed"
    others = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    strays = [path for path in others if not path.is_relative_to(store / "delta")]  # logs of the Delta tables
    assert [path.parent for path in strays] == [uploads] * SONGS

    assert "are done" in finish(bandscope(tmp_path / "killed", tmp_path / "killed-home", "run"))
