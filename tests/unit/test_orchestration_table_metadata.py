"""Metadata of a table and of a file in the Dagster UI."""

import re

import pytest

from bandscope_dagster.orchestration.table_metadata import column_schema, type_text, written_metadata
from bandscope_dagster.storage.tables.schemas import TABLES, Table
from bandscope_dagster.storage.tables.song_tables import Written


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_the_ui_shows_every_column_with_its_type_meaning_and_example(table: Table):
    shown = {column.name: column for column in column_schema(table).columns}
    assert tuple(shown) == table.names
    for column in table.columns:
        told = shown[column.name]
        assert told.type == type_text(column.type) and len(told.type) <= 15
        assert told.description is not None and told.description.startswith(column.description)
        assert re.sub(r"\w{33,}", "", column.example_text)[:12] in told.description
        assert not re.search(r"\w{33,}", told.description), "the UI would cut it"
        assert told.constraints.nullable == column.nullable


def test_units_are_in_the_description():
    songs = {column.name: column.description for column in column_schema(TABLES["songs"]).columns}
    assert songs["sample_rate"] == "Sample rate of the file [Hz] (such as 48000)"
    assert songs["title"] == "Title in the file's tags (such as Night Bus)"


def test_the_ui_shows_the_place_rows_and_size_of_a_file():
    written = Written(key="songs/a.parquet", uri="/store/songs/a.parquet", rows=1, bytes=12_345)
    assert written_metadata(written) == {
        "dagster/uri": "/store/songs/a.parquet",
        "dagster/partition_row_count": 1,
        "size_mb": 0.012,
    }
