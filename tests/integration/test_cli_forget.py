"""Forgetting songs: what is removed, that no run makes them again, and how they come back."""

import io
import json
import os
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from command_line import CommandLine
from instances import new_instance
from platforms import ASSETS, Platform, local_settings, song_bytes
from rich.console import Console

from bandscope_dagster.catalogs.recipes import all_catalogs
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.cli import forget
from bandscope_dagster.cli.run_findings import print_left_out
from bandscope_dagster.orchestration.jobs import JOBS
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import LAUNCHER, LAUNCHER_TAG
from bandscope_dagster.orchestration.unfinished import find_unfinished
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import load_settings
from bandscope_dagster.songs.find import find_songs
from bandscope_dagster.songs.forgotten import Tombstone, bury, read_tombstone
from bandscope_dagster.songs.query import query
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.tables.song_files import list_all_files
from bandscope_dagster.tagging.registry import present_from


def test_a_song_leaves_and_comes_back_and_nothing_makes_it_again_meanwhile(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bandscope = CommandLine(monkeypatch, capsys)
    store_folder = tmp_path / "store"
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(store_folder))
    monkeypatch.setenv("BANDSCOPE_SETTLE_S", "0")
    monkeypatch.setenv("BANDSCOPE_AUDIBLE_DB", "-30")
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

        monkeypatch.setattr(forget, "SHOWN", 2)
        assert "and 1 more song\n" in bandscope("forget", "*").out

        done = bandscope("forget", "a.wav", "--yes")
        assert done.code == 0, done
        assert platform.songs == [b, c] and catalog() == {b: "present", c: "present"}
        assert [key for key in keys(store) if a in key] == [
            f"forgotten/{a}.json",
            f"trash/song_pages/{a}.html",
            f"trash/songs/{a}.parquet",
        ]
        assert json.loads(store.read(f"forgotten/{a}.json"))["title"] is None
        assert store.head("uploads/a.wav") is not None
        # Neither the sensor nor a run registers it again, also if another home still knows it.
        instance.add_dynamic_partitions(SONGS_NAME, [a])
        assert register_uploads(instance, list_uploads(store)) == [] and platform.songs == [b, c]
        again = bandscope("forget", "a*", "--yes")  # changes no more than that
        assert again.code == 0 and "0 files" in again.out and "with 2 other files" in again.out
        assert platform.songs == [b, c]

        back = bandscope("forget", "--undo", a)
        assert back.code == 0 and f"{a} is back" in back.out
        assert platform.songs == [b, c, a] and store.read(f"songs/{a}.parquet") == before
        assert set(catalog()) == {a, b, c} and platform.status("songs")[a] == "MATERIALIZED"
        assert keys(store, "trash") == keys(store, "forgotten") == []

        # With its upload, which keeps its time on the way: it is the same song when it is back.
        with_upload = bandscope("forget", a, "--upload", "--yes")
        assert with_upload.code == 0
        assert f"{store.uri('delta')}, still have their rows for 30 days" in with_upload.out, (
            "what stays is said"
        )
        assert keys(store, "uploads") == ["uploads/b.wav", "uploads/c.wav"]
        assert json.loads(store.read(f"forgotten/{a}.json"))["upload_key"] == "uploads/a.wav"
        assert bandscope("forget", "--undo", "a.wav").code == 0
        assert a in list_uploads(store).by_song and a in catalog()

        # One upload is replaced, one is gone.
        (store_folder / "uploads/b.wav").write_bytes(song_bytes(9, 0.6))
        os.utime(store_folder / "uploads/b.wav", (1, 1))
        store.delete("uploads/c.wav")
        refreshed = list(refresh(store, all_catalogs(present_from(None, -30.0))))
        assert not any(each.changes.full for each in refreshed), "`forget` made them with these settings"
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

        # A listing that is not complete is no proof that an upload is gone.
        (store_folder / "uploads/loop.wav").symlink_to("loop.wav")
        refused = bandscope("forget", "--gone", "--yes")
        assert refused.code == 1 and "uploads/loop.wav" in refused.err and b not in refused.out
        (store_folder / "uploads/loop.wav").unlink()
        (store_folder / "uploads").rename(tmp_path / "unmounted")
        refused = bandscope("forget", "--gone", "--yes")
        assert refused.code == 1 and "not one upload" in refused.err and keys(store, "forgotten") == []
        (tmp_path / "unmounted").rename(store_folder / "uploads")
        assert bandscope("forget", "--gone", "--yes").code == 0
        assert set(catalog()) == {a, new} and platform.songs == [new]
        assert bandscope("forget", "--gone", "--yes").out.startswith("No song's upload is gone")


def test_the_same_command_completes_what_a_killed_one_began_and_leaves_songs_of_runs_alone(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bandscope = CommandLine(monkeypatch, capsys)
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path / "store"))
    with new_instance() as instance:
        platform = Platform(load_settings(), instance)
        store = platform.store
        ids = platform.upload({f"{name}.wav": song_bytes(seed, 0.6) for seed, name in enumerate("ab")})
        a, b = ids["a.wav"], ids["b.wav"]
        assert platform.materialize(("songs",)).success
        with store.create(f"song_pages/{a}.html") as page:
            page.write(b"<html>")
        before = keys(store)

        # Killed after the first file: the tombstone hides the upload, which has still to move.
        moved = [f"songs/{a}.parquet", f"song_pages/{a}.html", "uploads/a.wav"]
        tombstone = Tombstone(a, "a.wav", "uploads/a.wav", "2026-11-30T11:00:00+00:00", moved)
        bury(store, tombstone, moved[:1])
        with store.create(f"forgotten/{b}.json") as pending:
            pending.write(b"damaged")
        ended = bandscope("forget", "a.wav", b, "--upload", "--yes")
        assert ended.code == 1 and f"forgotten/{b}.json cannot be read" in ended.out, (
            "that fails no other song"
        )
        store.delete(f"forgotten/{b}.json")
        assert platform.songs == [b] and keys(store, "trash") == sorted(f"trash/{key}" for key in moved)
        assert read_tombstone(store, a) == tombstone
        # Killed before the catalogs were refreshed; another song has the file name by now.
        platform.upload({"a.wav": song_bytes(5, 0.6)})
        assert bandscope("forget", a, "--upload", "--yes").code == 0
        assert read_tombstone(store, a) == tombstone and len(list_uploads(store).uploads) == 2
        store.delete("uploads/a.wav")
        assert bandscope("forget", "--undo", a).code == 0
        assert set(before) <= set(keys(store)) and keys(store, "trash") == []

        # A `bandscope run` that was killed before its run began computes nothing.
        definitions = dg.Definitions(assets=ASSETS, jobs=JOBS, resources=resources(platform.settings))
        job = definitions.resolve_job_def("tag_songs")

        def begin(tags: dict[str, str]) -> None:
            instance.create_run_for_job(job, tags={"dagster/partition": b} | tags)

        begin({LAUNCHER_TAG: LAUNCHER})
        # Another has written a file, and ended, while a person thinks; the next one still computes after the answer.
        written = f"song_pages/{b}.html"
        monkeypatch.setattr(forget, "_ask", lambda songs: copy(store, f"songs/{b}.parquet", written))
        assert bandscope("forget", b).code == 0 and f"trash/{written}" in keys(store)
        assert bandscope("forget", "--undo", b).code == 0
        monkeypatch.setattr(forget, "_ask", lambda songs: begin({}))
        ended = bandscope("forget", b)
        assert ended.code == 1 and f"{b}: left out, because a run computes it" in ended.out
        assert b in platform.songs and keys(store, "forgotten") == []


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


def test_a_song_whose_upload_was_removed_before_it_was_read_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path / "store"), instance)
        ids = platform.upload({"here.wav": song_bytes(1, 0.6), "away song.wav": song_bytes(2, 0.6)})
        platform.store.delete("uploads/away song.wav")
        assert not platform.materialize(("songs",)).success
        song = ids["away song.wav"]
        assert find_songs(platform.store, "away-song") == [song] == find_songs(platform.store, "away")
        files = list_all_files(platform.store, SOURCES)
        listing = list_uploads(platform.store)
        todo = find_unfinished(instance, files, listing, platform.songs, ["songs"])
        assert todo.never_read == {song} == todo.cannot_complete
        text = io.StringIO()
        print_left_out(Console(file=text, width=300), todo, {*ids.values()}, set(), recompute=False)
        assert text.getvalue() == (
            f"Leaving out 1 song ({song}), removed before anything was read: `bandscope forget --gone` forgets them.\n"
        )
        known = forget._names(files, listing, platform.songs, {})
        assert forget._matching(known, ["away-song"]) == [song]


def copy(store, key: str, to: str) -> None:
    with store.create(to) as pending:
        pending.write(store.read(key))


def keys(store, folder: str = "") -> list[str]:
    return sorted(found.key for found in store.list(folder))
