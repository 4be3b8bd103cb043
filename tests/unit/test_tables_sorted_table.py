"""A sorted table is merged from sorted parts in bounded memory, and readers can skip its row groups."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from catalog_songs import INSTRUMENT_CATALOG
from hypothesis import given, settings
from hypothesis import strategies as st

from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.tables import sorted_table
from bandscope_dagster.storage.tables.schemas import catalog_key
from bandscope_dagster.storage.tables.sorted_table import SpilledRows, write_sorted

LAYOUT = INSTRUMENT_CATALOG.layout
KEYS = list(LAYOUT.order)


def rows(names: list[tuple[str, str]]) -> pl.DataFrame:
    """Rows with these instruments and songs."""
    empty = pl.DataFrame(pl.from_arrow(LAYOUT.table.schema.empty_table()))
    known = pl.DataFrame({"instrument": [name for name, _ in names], "song_id": [song for _, song in names]})
    return pl.concat([empty, known.cast({"instrument": pl.String, "song_id": pl.String})], how="diagonal")


NAMES = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("uvwxyz")), max_size=60)


@settings(max_examples=25)
@given(st.lists(NAMES, min_size=1, max_size=4), st.integers(1, 7))
def test_the_file_holds_all_rows_in_order_in_full_row_groups(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[str, str]]], group_rows: int
):
    folder = tmp_path_factory.mktemp("store")
    store = open_store(str(folder))
    layout = replace(LAYOUT, row_group_rows=group_rows)
    written = write_sorted(
        store, layout, [layout.sort(rows(part)).lazy() for part in parts], {"bandscope.note": "kept"}
    )

    file = pq.ParquetFile(written.uri)
    assert file.metadata.metadata[b"bandscope.note"] == b"kept"
    assert file.schema_arrow.equals(LAYOUT.table.schema)
    found = pl.DataFrame(pl.from_arrow(file.read()))
    assert found.equals(pl.concat([rows(part) for part in parts]).sort(KEYS, maintain_order=True))
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert all(size == group_rows for size in sizes[:-1])
    assert written.rows == sum(sizes)


def test_more_rows_than_are_held_at_once_are_spilled_and_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sorted_table, "SPILL_BYTES", 20_000)
    random = np.random.default_rng(0)
    names = [(f"instrument {random.integers(40):02}", f"song {number:05}") for number in range(5000)]
    spilled = SpilledRows(LAYOUT, tmp_path)
    for start in range(0, len(names), 250):
        spilled.add(rows(names[start : start + 250]))
    written = write_sorted(open_store(str(tmp_path / "store")), LAYOUT, spilled.parts(), {})
    assert len(list(tmp_path.glob("*.parquet"))) > 5
    found = pl.read_parquet(written.uri).select("instrument", "song_id").rows()
    assert found == sorted(names)


def test_an_instrument_is_found_without_reading_the_other_row_groups(tmp_path: Path):
    layout = replace(LAYOUT, row_group_rows=100)
    store = open_store(str(tmp_path))
    names = [(f"instrument {number % 50:02}", f"song {number:05}") for number in range(5000)]
    write_sorted(store, layout, [layout.sort(rows(names)).lazy()], {})
    metadata = pq.read_metadata(tmp_path / catalog_key(LAYOUT.table))
    place = LAYOUT.table.names.index("instrument")
    limits = [
        (group.column(place).statistics.min, group.column(place).statistics.max)
        for group in map(metadata.row_group, range(metadata.num_row_groups))
    ]
    assert sum(low <= "instrument 07" <= high for low, high in limits) == 1
    assert len(limits) == 50


def test_writing_that_fails_leaves_the_file_that_was_there(tmp_path: Path):
    store = open_store(str(tmp_path))
    before = write_sorted(store, LAYOUT, [rows([("harp", "a")]).lazy()], {})
    without_a_song = rows([("harp", "b")]).with_columns(pl.lit(None, pl.String).alias("song_id"))
    with pytest.raises(ValueError, match="song_id"):
        write_sorted(store, LAYOUT, [without_a_song.lazy()], {})
    assert pl.read_parquet(before.uri)["song_id"].to_list() == ["a"]
    assert [found.key for found in store.list()] == [before.key]
