"""Forgetting songs: what is removed, that no run makes them again, and how they come back."""

import json
import os

import polars as pl
import pytest
from command_line import CommandLine
from instances import new_instance
from platforms import Platform, local_settings, song_bytes

from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import load_settings
from bandscope_dagster.songs.query import query
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB
from bandscope_dagster.tagging.registry import present_from


def test_a_song_leaves_and_comes_back_and_nothing_makes_it_again_meanwhile(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bandscope = CommandLine(monkeypatch, capsys)
    store_folder = tmp_path / "store"
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(store_folder))
    monkeypatch.setenv("BANDSCOPE_SETTLE_S", "0")
    with new_instance() as instance:
        platform = Platform(load_settings(), instance)
        store = platform.store
        ids = platform.upload({f"{name}.wav": song_bytes(seed, 0.6) for seed, name in enumerate("abc")})
        a, b, c = (ids[f"{name}.wav"] for name in "abc")
        assert platform.materialize(("songs",)).success
        with store.create(f"song_pages/{a}.html") as page:
            page.write(b"<html>")
        before = store.read(f"songs/{a}.parquet")

        def catalog() -> dict[str, str]:
            rows = query(store, "SELECT song_id, upload FROM song_catalog")
            return dict(rows.iter_rows())

        # No one can be asked, so nothing happens; and the command names what it would remove.
        asked = bandscope("forget", "a.wav")
        assert asked.code == 1 and "--yes" in asked.err
        assert f"{a}: 2 files" in asked.out and "uploads/a.wav stays" in asked.out
        assert a in platform.songs and store.head(f"songs/{a}.parquet") is not None

        done = bandscope("forget", "a.wav", "--yes")
        assert done.code == 0, done
        assert platform.songs == [b, c] and catalog() == {b: "present", c: "present"}
        assert [key for key in keys(store) if a in key] == [
            f"forgotten/{a}.json",
            f"trash/song_pages/{a}.html",
            f"trash/songs/{a}.parquet",
        ]
        assert store.head("uploads/a.wav") is not None
        # Neither the sensor nor a run registers it again, also if another home still knows it.
        instance.add_dynamic_partitions(SONGS_NAME, [a])
        assert register_uploads(instance, list_uploads(store)) == [] and platform.songs == [b, c]
        assert bandscope("forget", "a*", "--yes").code == 1  # no such song any more

        back = bandscope("forget", "--undo", a)
        assert back.code == 0 and f"{a} is back" in back.out
        assert platform.songs == [b, c, a] and store.read(f"songs/{a}.parquet") == before
        assert set(catalog()) == {a, b, c} and platform.status("songs")[a] == "MATERIALIZED"
        assert keys(store, "trash") == keys(store, "forgotten") == []

        # With its upload, which keeps its time on the way: it is the same song when it is back.
        assert bandscope("forget", a, "--upload", "--yes").code == 0
        assert keys(store, "uploads") == ["uploads/b.wav", "uploads/c.wav"]
        assert json.loads(store.read(f"forgotten/{a}.json"))["upload_key"] == "uploads/a.wav"
        assert bandscope("forget", "--undo", "a.wav").code == 0
        assert a in list_uploads(store).by_song and a in catalog()

        # One upload is replaced, one is gone.
        (store_folder / "uploads/b.wav").write_bytes(song_bytes(9, 0.6))
        os.utime(store_folder / "uploads/b.wav", (1, 1))
        store.delete("uploads/c.wav")
        for _ in refresh(store, all_catalogs(present_from(None, AUDIBLE_DB))):
            pass
        assert catalog() == {a: "present", b: "replaced", c: "gone"}
        [new] = register_uploads(instance, list_uploads(store))
        shown = bandscope("status").out
        assert [line.split()[-1] for line in shown.splitlines() if line.startswith((b, c))] == [
            "replaced",
            "gone",
        ]
        # Computed again, the old rows stay: no upload could make them again.
        rows = {song: store.read(f"songs/{song}.parquet") for song in (b, c)}
        assert platform.materialize(("songs",)).success
        assert {song: store.read(f"songs/{song}.parquet") for song in (b, c)} == rows

        # Deleting a partition in the UI deletes no data, and status says so.
        instance.delete_dynamic_partition(SONGS_NAME, a)
        assert "bandscope forget" in bandscope("status").out and a in bandscope("status").out

        assert bandscope("forget", "--gone", "--yes").code == 0
        assert set(catalog()) == {a, new} and platform.songs == [new]
        assert bandscope("forget", "--gone", "--yes").out.startswith("No song's upload is gone")


def test_an_upload_that_was_replaced_before_it_was_read_is_no_failure(tmp_path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path / "store"), instance)
        ids = platform.upload({"a.wav": song_bytes(1, 0.6), "away.wav": song_bytes(2, 0.6)})
        with platform.store.create("uploads/a.wav") as pending:
            pending.write(song_bytes(3, 0.7))
        platform.store.delete("uploads/away.wav")
        assert not platform.materialize(("songs",)).success, "the other song's upload is gone"
        assert platform.status("songs") == {ids["a.wav"]: "MATERIALIZED", ids["away.wav"]: "FAILED"}
        row = pl.read_parquet(platform.store.uri(f"songs/{ids['a.wav']}.parquet"))
        assert row["error"][0].startswith("replaced: ")
        assert platform.store.head(f"songs/{ids['away.wav']}.parquet") is None


def keys(store, folder: str = "") -> list[str]:
    return sorted(found.key for found in store.list(folder))
