"""The home remembers the stores that it has used."""

from pathlib import Path

import pytest

from bandscope_dagster.orchestration.used_stores import (
    RECORD,
    StoreLost,
    check_not_empty,
    check_store,
    remember_store,
)
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.song_files import list_all_files


def store_at(folder: Path) -> ObjectStore:
    store = open_store(str(folder))
    with store.create("uploads/a.wav") as pending:
        pending.write(b"a")
    return store


def test_a_store_that_has_vanished_is_lost_and_another_is_new(tmp_path: Path) -> None:
    one, two = store_at(tmp_path / "one"), open_store(str(tmp_path / "two"))
    remember_store(one, tmp_path)
    check_store(one, tmp_path)
    check_store(two, tmp_path)
    one.delete("uploads/a.wav")
    with pytest.raises(StoreLost, match="Mount its disk again"):
        check_store(one, tmp_path)


def test_a_home_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remember_store(store_at(tmp_path / "store"), tmp_path / "no-such-home")
    assert "does not remember the store" in caplog.text


def test_names_that_are_not_utf_8_do_not_lose_the_others(tmp_path: Path) -> None:
    one, odd = store_at(tmp_path / "one"), store_at(tmp_path / "\udcff")
    for store in (one, odd, one):
        remember_store(store, tmp_path)
    assert len((tmp_path / RECORD).read_bytes().splitlines()) == 2
    one.delete("uploads/a.wav")
    odd.delete("uploads/a.wav")
    for store in (one, odd):
        with pytest.raises(StoreLost):
            check_store(store, tmp_path)


def test_a_store_with_catalogs_alone_is_lost_if_the_home_knows_songs(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    with store.create("song_catalog/song_catalog.parquet") as pending:
        pending.write(b"an empty catalog")

    def check(songs: list[str]) -> None:
        check_not_empty(store, tmp_path, list_uploads(store), list_all_files(store, SOURCES), songs)

    check(["a"])
    store.delete("uploads/a.wav")
    with pytest.raises(
        StoreLost, match=r"neither uploads nor songs, and .* knows 1 song\. Mount its disk again"
    ):
        check(["a"])
    check([])
    with store.create("song_failures/a.parquet") as pending:
        pending.write(b"")
    check(["a"])
