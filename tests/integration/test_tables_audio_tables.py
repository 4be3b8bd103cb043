"""Audio by the block: tools read the numbers without the audio, and one block without the others."""

import io
import os
import tracemalloc
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import soundfile
from song_rows import block_rows, lineage

from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter, read_blocks
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import STEMS
from bandscope_dagster.storage.tables.song_tables import write_error_row

SONG = "song-0123456789ab"
NAMES = ("vocals", "accompaniment")


class CountingFile(io.FileIO):
    """A file that counts the bytes that are read from it."""

    bytes_read = 0

    def readinto(self, buffer) -> int:
        count = super().readinto(buffer)
        self.bytes_read += count
        return count

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def write_song(store: ObjectStore, song: str = SONG, blocks: int = 4) -> str:
    with AudioTableWriter(store, STEMS, lineage(song)) as writer:
        for block in range(blocks):
            writer.add(block_rows(song, block, NAMES))
        return writer.commit().key


def test_blocks_come_back_one_by_one_with_all_their_stems(store: ObjectStore):
    write_song(store)
    blocks = list(read_blocks(store, STEMS, SONG))
    assert len(blocks) == 4
    for number, rows in enumerate(blocks):
        for row, expected in zip(rows, block_rows(SONG, number, NAMES), strict=True):
            assert row == expected | {name: pytest.approx(expected[name]) for name in ("peak", "rms_dbfs")}


def test_what_was_written_says_how_much(store: ObjectStore):
    with AudioTableWriter(store, STEMS, lineage(SONG)) as writer:
        writer.add(block_rows(SONG, 0, NAMES))
        written = writer.commit()
    assert written.rows == 2
    assert written.bytes == store.head(written.key).size
    assert written.uri == store.uri(f"stems/{SONG}.parquet")


def test_notes_are_known_at_the_commit_and_stand_beside_the_lineage(store: ObjectStore):
    with AudioTableWriter(store, STEMS, lineage(SONG)) as writer:
        writer.add(block_rows(SONG, 0, NAMES))
        written = writer.commit({"quality": '{"residual_db": -41.5}', "used": "ü"})
    with store.open(written.key) as file:
        metadata = pq.read_metadata(file).metadata
    assert metadata[b"bandscope.quality"] == b'{"residual_db": -41.5}'
    assert metadata[b"bandscope.used"] == "ü".encode()
    assert written.bytes == store.head(written.key).size
    assert read_lineage(store, STEMS, SONG) == lineage(SONG)
    assert len(list(read_blocks(store, STEMS, SONG))) == 1


def test_without_a_commit_nothing_is_written(store: ObjectStore):
    with AudioTableWriter(store, STEMS, lineage(SONG)) as writer:
        writer.add(block_rows(SONG, 0, NAMES))
    with pytest.raises(RuntimeError, match="model"), AudioTableWriter(store, STEMS, lineage(SONG)) as writer:
        writer.add(block_rows(SONG, 0, NAMES))
        raise RuntimeError("model")
    assert list(store.list()) == []


def test_rows_of_another_song_are_refused(store: ObjectStore):
    with (
        pytest.raises(ValueError, match="cannot have rows of"),
        AudioTableWriter(store, STEMS, lineage(SONG)) as writer,
    ):
        writer.add(block_rows("another", 0, NAMES))


def test_a_song_without_a_file_says_what_to_materialize(store: ObjectStore):
    with pytest.raises(CannotAnalyze, match=f"{SONG} has no stems: materialize stems"):
        next(read_blocks(store, STEMS, SONG))


def test_a_song_with_an_error_has_one_row_that_says_so(store: ObjectStore):
    write_error_row(store, STEMS, SONG, "upstream: empty: 0 bytes", lineage(SONG))
    (rows,) = read_blocks(store, STEMS, SONG)
    assert [row["error"] for row in rows] == ["upstream: empty: 0 bytes"]


def test_the_audio_decodes_with_soundfile(store: ObjectStore):
    write_song(store, blocks=1)
    (rows,) = read_blocks(store, STEMS, SONG)
    for row in rows:
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert (samples.shape, rate) == ((row["frames"], row["channels"]), row["sample_rate"])
        rms_dbfs = 10 * np.log10(np.mean((samples * row["gain"]) ** 2))
        assert rms_dbfs == pytest.approx(row["rms_dbfs"], abs=0.01)


def test_polars_pandas_duckdb_and_pyarrow_read_the_same_sums(tmp_path: Path):
    store = open_store(str(tmp_path))
    for song in ("a", "b", "c"):
        write_song(store, song, blocks=2)
    unfinished = store.create("stems/d.parquet")  # no glob may match it
    unfinished.write(b"half")
    files = str(tmp_path / "stems" / "*.parquet")

    polars = pl.scan_parquet(files).select(pl.len(), pl.sum("frames"), pl.sum("rms_dbfs")).collect().row(0)
    frame = pd.read_parquet(tmp_path / "stems", columns=["frames", "rms_dbfs"])
    pandas = (len(frame), frame["frames"].sum(), frame["rms_dbfs"].sum())
    duck = duckdb.sql(f"select count(*), sum(frames), sum(rms_dbfs) from '{files}'").fetchall()[0]
    table = ds.dataset(tmp_path / "stems", format="parquet").to_table(columns=["frames", "rms_dbfs"])
    arrow = (table.num_rows, sum(table["frames"].to_pylist()), sum(table["rms_dbfs"].to_pylist()))
    unfinished.abort()

    expected_frames = sum(row["frames"] for block in range(2) for row in block_rows("a", block, NAMES)) * 3
    for found in (polars, pandas, duck, arrow):
        assert found[:2] == (12, expected_frames)
        assert found[2] == pytest.approx(arrow[2], rel=1e-6)


def test_a_scan_of_the_numbers_leaves_the_audio_unread(tmp_path: Path):
    store = open_store(str(tmp_path))
    path = store.uri(write_song(store, blocks=12))
    with CountingFile(path) as file:
        numbers = [name for name in STEMS.names if name != "audio"]
        assert pq.ParquetFile(file).read(columns=numbers).num_rows == 24
        assert file.bytes_read < 0.05 * os.path.getsize(path)


def test_reading_one_block_leaves_the_others_unread(tmp_path: Path):
    store = open_store(str(tmp_path))
    path = store.uri(write_song(store, blocks=12))
    with CountingFile(path) as file:
        assert pq.ParquetFile(file).read_row_group(5).column("block").to_pylist() == [5, 5]
        assert file.bytes_read < 2 / 12 * os.path.getsize(path)


def test_audio_is_stored_as_it_is_and_without_statistics(tmp_path: Path):
    store = open_store(str(tmp_path))
    group = pq.read_metadata(store.uri(write_song(store, blocks=1))).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["audio.bytes"].compression == "UNCOMPRESSED"
    assert not columns["audio.bytes"].is_stats_set
    assert not columns["audio.bytes"].has_dictionary_page
    assert columns["rms_dbfs"].compression == "ZSTD"
    assert columns["rms_dbfs"].statistics.min == pytest.approx(block_rows(SONG, 0, NAMES)[1]["rms_dbfs"])


def test_equal_blocks_make_equal_files(tmp_path: Path):
    first, second = (open_store(str(tmp_path / name)) for name in ("1", "2"))
    assert first.read(write_song(first)) == second.read(write_song(second))


def test_memory_does_not_grow_with_the_song(tmp_path: Path):
    store = open_store(str(tmp_path))
    rows = block_rows(SONG, 0, NAMES)
    one_block = sum(len(row["audio"]["bytes"]) for row in rows)

    def peak_of(blocks: int) -> int:
        tracemalloc.start()
        with AudioTableWriter(store, STEMS, lineage(SONG)) as writer:
            for _ in range(blocks):
                writer.add(rows)
            writer.commit()
        for _ in read_blocks(store, STEMS, SONG):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_of(2)  # what is imported and cached once
    assert peak_of(60) < peak_of(6) + 3 * one_block


def test_a_file_whose_blocks_cannot_be_read_is_damaged(store: ObjectStore) -> None:
    write_song(store)
    key = f"stems/{SONG}.parquet"
    data = bytearray(store.read(key))
    data[4:] = bytes(byte ^ 0xFF for byte in data[4:-2000]) + data[-2000:]
    with store.create(key) as file:
        file.write(data)
    with pytest.raises(
        DamagedFile, match=rf"{SONG}.parquet cannot be read \(.*\); `bandscope run` makes it again, if"
    ):
        list(read_blocks(store, STEMS, SONG))
