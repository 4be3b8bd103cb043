"""A damaged file and a fault of the store are different errors, whatever pyarrow raises."""

import random
from pathlib import Path

import pytest
from song_rows import lineage, song_row

from bandscope_dagster.storage.objects.local import LocalStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import footer_fault, read_footer
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import read_table, write_table

FLIPS = 300  # a quarter of them raises OSError in pyarrow, which a fault of the store raises too


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(str(tmp_path))
    write_table(store, SONGS, [song_row("one")], lineage("one"))
    return store


def test_flipped_bits_in_a_footer_are_damage_or_harmless(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "songs" / "one.parquet"
    whole = path.read_bytes()
    fate = random.Random(7)
    faults = 0
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        damaged[-9 - fate.randrange(int.from_bytes(whole[-8:-4], "little"))] ^= 1 << fate.randrange(8)
        path.write_bytes(damaged)
        faults += footer_fault(store, SONGS, "one") is not None  # raises nothing
    assert FLIPS // 4 < faults < FLIPS


def test_a_fault_of_the_store_is_not_damage(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "songs" / "one.parquet"
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        read_footer(store, SONGS, "one")


def test_the_rows_of_another_song_are_not_returned(store: LocalStore, tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    (songs / "two.parquet").write_bytes((songs / "one.parquet").read_bytes())
    with pytest.raises(DamagedFile, match="the file of another song, one"):
        read_table(store, SONGS, "two")
