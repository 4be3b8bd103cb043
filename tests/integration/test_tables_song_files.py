"""One listing has the versions of all songs' files, and many files are read as one table."""

from pathlib import Path

import polars as pl
from catalog_songs import analyze
from song_rows import lineage, song_row

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS, SONG_FAILURES, SONGS, STEMS
from bandscope_dagster.storage.tables.song_files import files_of, list_song_files
from bandscope_dagster.storage.tables.song_tables import write_table


def test_a_listing_has_a_version_for_every_file_of_every_song(store: ObjectStore):
    analyze(store, "b")
    write_table(store, SONGS, [song_row("a")], lineage("a"))
    analyze(store, "no-song")
    store.delete("songs/no-song.parquet")
    files = list_song_files(store, [STEMS, SONGS, INSTRUMENT_TAGS])
    assert files.versions.columns == ["song_id", "songs", "song_failures", "stems", "instrument_tags"]
    assert files.song_ids.to_list() == ["a", "b"]
    assert files.versions["stems"].to_list() == [None, store.head("stems/b.parquet").fingerprint]
    assert files.having(STEMS) == ["b"]


def test_what_is_no_song_is_left_out(store: ObjectStore):
    write_table(store, SONGS, [song_row("a")], lineage("a"))
    for key in ("songs/notes.txt", "songs/old/a.parquet"):
        with store.create(key) as pending:
            pending.write(b"x")
    assert list_song_files(store, [SONGS]).song_ids.to_list() == ["a"]


def test_songs_can_be_taken_in_batches_and_by_name(tmp_path: Path):
    store = open_store(str(tmp_path))
    for song in "abcde":
        write_table(store, SONGS, [song_row(song)], lineage(song))
    files = list_song_files(store, [SONGS])
    assert [batch.song_ids.to_list() for batch in files.batches(2)] == [["a", "b"], ["c", "d"], ["e"]]
    some = files.of(pl.Series(["d", "b", "x"]))
    assert some.read(SONGS, lambda rows: rows.select("song_id"))["song_id"].to_list() == ["b", "d"]
    assert some.of(pl.Series([], dtype=pl.String)).read(SONGS, lambda rows: rows).columns == list(SONGS.names)


def test_a_file_that_has_gone_since_the_listing_has_no_rows(store: ObjectStore):
    for song in "ab":
        write_table(store, SONGS, [song_row(song)], lineage(song))
    files = list_song_files(store, [SONGS])
    store.delete("songs/a.parquet")
    assert files.read(SONGS, lambda rows: rows.select("song_id"))["song_id"].to_list() == ["b"]


def test_a_file_that_cannot_be_read_is_damaged_and_the_others_are_read(store: ObjectStore):
    for song in ("a", "broken", "z"):
        write_table(store, SONGS, [song_row(song)], lineage(song))
    with store.create("songs/broken.parquet") as pending:
        pending.write(b"PAR1 no parquet PAR1")
    files = list_song_files(store, [SONGS])
    assert files.read(SONGS, lambda rows: rows.select("song_id"))["song_id"].to_list() == ["a", "z"]
    assert files.damaged(SONGS).keys() == {"broken"}
    assert "songs/broken.parquet cannot be read (" in files.damaged(SONGS)["broken"]
    assert files.damaged(STEMS) == {}


def test_the_versions_of_one_song_are_those_of_the_listing(store: ObjectStore):
    analyze(store, "a")
    tables = [SONGS, SONG_FAILURES, STEMS]
    assert files_of(store, "a", tables).versions.equals(list_song_files(store, tables).versions)
