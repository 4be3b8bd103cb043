"""The types for Hugging Face ``datasets`` in every file: equal to its own, and no change for other readers."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_songs import CATALOGS, analyze, reject
from s3_server import S3Server
from song_rows import tag_row

from bandscope_dagster.catalogs.refresh import are_current, refresh
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.features import FEATURES_ENTRY, features_entry
from bandscope_dagster.storage.tables.schemas import (
    CATALOG_TABLES,
    DECODED_WAVEFORMS,
    SONG_TABLES,
    STEMS,
    TABLES,
    Table,
    catalog_key,
    table_key,
)
from bandscope_dagster.storage.tables.song_files import list_song_files

AUDIO_TABLES = (DECODED_WAVEFORMS, STEMS)
STORED = (*SONG_TABLES, *CATALOG_TABLES)
of_every_table = pytest.mark.parametrize("table", STORED, ids=lambda table: table.name)


def fill(store: ObjectStore) -> None:
    """An analyzed song, a rejected song, and the catalogs."""
    tags = [tag_row("song", "harp", 0.9, 0.0), tag_row("song", "flute", 0.8, 3.0)]
    stem_tags = [tag_row("song", "singing", 0.9, 0.0, source="vocals", family="voice")]
    analyze(store, "song", tags, stem_tags)
    reject(store, "broken", "truncated: 1 of 2 s")
    assert len(list(refresh(store, CATALOGS))) == len(CATALOGS)


def key_of(table: Table, song: str = "song") -> str:
    return catalog_key(table) if table in CATALOG_TABLES else table_key(table, song)


def without_features(data: bytes) -> bytes:
    """The file as an earlier version wrote it: with all other entries, and no types for ``datasets``."""
    rows = pq.read_table(io.BytesIO(data))
    metadata = {name: text for name, text in rows.schema.metadata.items() if name != FEATURES_ENTRY.encode()}
    file = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata(metadata), file)
    return file.getvalue()


def make_older(store: ObjectStore, key: str) -> None:
    data = store.read(key)
    assert FEATURES_ENTRY.encode() in pq.read_metadata(io.BytesIO(data)).metadata
    with store.create(key) as pending:
        pending.write(without_features(data))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    store = open_store(str(tmp_path_factory.mktemp("features") / "store"))
    fill(store)
    return store


@pytest.fixture(scope="module", params=["local", "s3"])
def place(
    request: pytest.FixtureRequest, local: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of the store, with the access of an analyst in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        if request.param == "local":
            yield local.url
            return
        server: S3Server = request.getfixturevalue("s3_server")
        empty = server.place()
        store = empty.open()
        for found in local.list():
            with store.create(found.key) as pending:
                pending.write(local.read(found.key))
        known = empty.environment()
        for name, value in (known | {"AWS_DEFAULT_REGION": known["AWS_REGION"]}).items():
            patch.setenv(name, value)
        yield empty.url


def loaded(files: str | list[str], **options: Any) -> Any:
    from datasets import load_dataset

    return load_dataset("parquet", data_files=files, split="train", streaming=True, **options)


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_the_entry_is_what_datasets_writes_for_the_table(table: Table) -> None:
    from datasets import Audio, Features

    features = Features.from_arrow_schema(table.schema)
    if table in AUDIO_TABLES:
        features["audio"] = Audio(decode=False)
    assert features.arrow_schema.metadata == {
        name.encode(): text.encode() for name, text in features_entry(table).items()
    }


@of_every_table
def test_every_file_has_typed_features_without_a_cast(table: Table, place: str) -> None:
    from datasets import Audio, Features

    dataset = loaded(f"{place}/{table.name}/*.parquet")
    expected = Features.from_dict(json.loads(features_entry(table)[FEATURES_ENTRY])["info"]["features"])
    assert dataset.features == expected
    assert list(dataset.features) == list(table.names)
    if table in AUDIO_TABLES:
        assert dataset.features["audio"] == Audio(decode=False)
        rows = [row for row in dataset if row["error"] is None]
        assert rows and all(row["audio"]["bytes"][:4] == b"fLaC" for row in rows)
    else:
        assert {row["song_id"] for row in dataset} <= {"song", "broken"}


def test_lists_structs_and_times_are_values_of_python(place: str) -> None:
    (song,) = [row for row in loaded(f"{place}/song_catalog/*.parquet") if row["song_id"] == "song"]
    assert song["uploaded_at"].tzinfo is not None
    assert sorted(each["instrument"] for each in song["instruments"]) == ["flute", "harp", "singing"]
    assert song["missing_tables"] == []
    (error,) = loaded(f"{place}/song_errors/*.parquet")
    assert error["tables"] == [table.name for table in SONG_TABLES]


@pytest.mark.parametrize("older", ["broken", "song"], ids=["older-first", "newer-first"])
def test_files_without_the_entry_load_beside_files_with_it(older: str, tmp_path: Path) -> None:
    from datasets import Audio

    store = open_store(str(tmp_path / "store"))
    fill(store)
    for table in SONG_TABLES:
        make_older(store, table_key(table, older))
        files = [store.uri(table_key(table, song)) for song in ("broken", "song")]  # the first decides
        dataset = loaded(files)
        if table in AUDIO_TABLES:
            is_audio = dataset.features["audio"] == Audio(decode=False)
            assert is_audio == (older != "broken")
            dataset = dataset.cast_column("audio", Audio(decode=False))
            assert dataset.features["audio"] == Audio(decode=False)
        rows = list(dataset)
        assert {row["song_id"] for row in rows} == {"broken", "song"}
        if table in AUDIO_TABLES:
            assert next(row["audio"]["bytes"][:4] for row in rows if row["song_id"] == "song") == b"fLaC"


@of_every_table
def test_other_readers_see_no_difference(table: Table, local: ObjectStore, tmp_path: Path) -> None:
    import duckdb
    import pandas as pd

    new, old = tmp_path / "new.parquet", tmp_path / "old.parquet"
    new.write_bytes(local.read(key_of(table)))
    old.write_bytes(without_features(new.read_bytes()))
    assert pl.read_parquet(new).equals(pl.read_parquet(old))
    assert pl.read_parquet_schema(new) == pl.read_parquet_schema(old) == pl.read_parquet(new).schema
    pd.testing.assert_frame_equal(pd.read_parquet(new), pd.read_parquet(old))
    assert duckdb.sql(f"DESCRIBE FROM '{new}'").fetchall() == duckdb.sql(f"DESCRIBE FROM '{old}'").fetchall()
    schema = pq.read_schema(new)
    assert schema.equals(pq.read_schema(old)) and schema.equals(table.schema)
    for column in table.columns:
        found = schema.field(column.name).metadata
        assert found[b"description"].decode() == column.description
        assert found.get(b"unit", b"").decode() == column.unit


def test_files_and_catalogs_without_the_entry_are_current(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    fill(store)
    for table in CATALOG_TABLES:
        make_older(store, catalog_key(table))
    assert are_current(store, CATALOGS, list_song_files(store, SOURCES))


def test_the_type_of_audio_in_the_tables_is_that_of_datasets() -> None:
    from datasets import Audio

    assert pa.struct(STEMS.schema.field("audio").type) == Audio.pa_type
