"""Two machines that process the same songs at the same time: the tables are valid and equal to those of one run."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
from command_processes import bandscope, finish, platform
from platforms import PER_SONG, calm_platform, song_bytes
from same_tables import assert_same_tables

SONGS = 8


def test_two_runs_over_the_same_songs_at_once_end_with_the_tables_of_one(tmp_path: Path) -> None:
    store = tmp_path / "shared"
    (store / "uploads").mkdir(parents=True)
    for number in range(SONGS):
        (store / "uploads" / f"song {number}.wav").write_bytes(song_bytes(number, seconds=1.0))
    shutil.copytree(store, tmp_path / "alone")  # keeps the files' times, and so the song ids
    homes = [tmp_path / "home 1", tmp_path / "home 2"]

    running = [bandscope(store, home, "run") for home in homes]
    for process in running:
        finish(process)

    with calm_platform(tmp_path / "alone") as alone:
        for home in homes:
            shared = platform(store, home)
            for asset in PER_SONG:
                assert set(shared.status(asset).values()) == {"MATERIALIZED"}
                assert len(shared.songs) == SONGS
            assert_same_tables(shared, alone)
    for path in store.rglob("*.parquet"):
        pq.ParquetFile(path).read()  # fails unless the file is complete
    others = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    strays = [path for path in others if not path.is_relative_to(store / "delta")]  # logs of the Delta tables
    assert [path.parent for path in strays] == [store / "uploads"] * SONGS
