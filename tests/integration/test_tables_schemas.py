"""The columns of the tables, which are a contract with analysts, and files with the columns of other versions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_songs import CATALOGS, PRESENT_FROM, refreshed, rows_of
from song_rows import block_rows, lineage, song_row, tag_row

from bandscope_dagster.songs.facts import read_facts
from bandscope_dagster.songs.query import query
from bandscope_dagster.songs.stored_files import read_stored_file
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables import schemas
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter, read_blocks
from bandscope_dagster.storage.tables.columns import Column
from bandscope_dagster.storage.tables.lineage import Maker, read_footer
from bandscope_dagster.storage.tables.schemas import (
    DECODED_WAVEFORMS,
    INSTRUMENT_TAGS,
    SONG_CATALOG,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    TABLES,
    Table,
    table_key,
)
from bandscope_dagster.storage.tables.song_files import list_song_files
from bandscope_dagster.storage.tables.song_tables import read_table, write_table

BLOCK_COLUMNS = "start_frame, frames, sample_rate, channels, peak, rms_dbfs, audio, gain, error"
SONG_COLUMNS = (
    "song_id, song_hash, filename, owner, upload_key, uploaded_at, size_bytes, container, codec, "
    "sample_rate, channels, bit_rate, duration_s, frames, mono_mean, mono_std, peak, loudness_lufs, rms_dbfs, "
    "title, artist, album, genre, error"
)
SONG_QUALITY_COLUMNS = "bad_packets, lost_s, warning, audio_stream, audio_streams, true_peak_dbtp"
TAG_COLUMNS = (
    "song_id, source, instrument, family, label, score, start_s, end_s, layer, model, detected_at, error, "
    "mapped, answer, note, level_dbfs"
)
CONTRACT = {
    "songs": f"{SONG_COLUMNS}, {SONG_QUALITY_COLUMNS}",
    "decoded_waveforms": f"song_id, block, {BLOCK_COLUMNS}",
    "stems": f"song_id, block, stem, model, {BLOCK_COLUMNS}",
    "instrument_tags": TAG_COLUMNS,
    "stem_instrument_tags": TAG_COLUMNS,
    "song_failures": "song_id, table, stage, reason, message, since",
    "song_catalog": f"{SONG_COLUMNS}, stem_energy_share, top_instruments, status, missing_tables, "
    f"separator, tagger, residual_db, stem_quality, instruments, {SONG_QUALITY_COLUMNS}, upload, name",
    "instrument_catalog": "song_id, source, instrument, family, score, score_max, seconds_present, windows, "
    "first_s, last_s, layer, model, intervals, name",
    "song_errors": "song_id, table, stage, reason, message, since, tables, messages",
}


def test_the_contract_names_every_table():
    assert list(TABLES) == list(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_table_has_its_columns_in_the_promised_order(name: str):
    assert list(TABLES[name].names) == CONTRACT[name].split(", ")
    assert TABLES[name].schema.names == CONTRACT[name].split(", ")


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_column_is_described_and_only_the_song_is_required(table: schemas.Table):
    assert table.description.endswith(".") and table.nulls.endswith(".")
    for field in table.schema:
        assert field.metadata[b"description"]
    assert not table.schema.field("song_id").nullable
    if table in schemas.SONG_TABLES:
        assert [field.name for field in table.schema if not field.nullable] == ["song_id"]


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_example_is_a_value_of_its_column(table: schemas.Table):
    for column in table.columns:
        assert column.example is not None, column.name
        (stored,) = pa.array([column.example], column.type).to_pylist()
        told = pytest.approx(column.example, rel=1e-6) if isinstance(stored, float) else column.example
        if not isinstance(stored, list):  # of lists the structs hold 32-bit floats
            assert stored == told, column.name
        assert column.example_text.strip(), column.name


def test_units_travel_with_the_columns():
    units = {field.name: field.metadata.get(b"unit") for field in TABLES["songs"].schema}
    assert units["sample_rate"] == b"Hz"
    assert units["loudness_lufs"] == b"LUFS"
    assert units["duration_s"] == b"s"
    assert units["title"] is None
    assert TABLES["song_catalog"].schema.field("residual_db").metadata[b"unit"] == b"dB"


def test_audio_is_the_struct_of_datasets_and_times_are_utc():
    assert TABLES["stems"].schema.field("audio").type == pa.struct(
        [("bytes", pa.binary()), ("path", pa.string())]
    )
    for table in TABLES.values():
        for field in table.schema:
            if pa.types.is_timestamp(field.type):
                assert field.type == pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize("song_id", ["", "A", "a/b", "..", "a b", "x" * 65, "ä", "a\n"])
def test_what_is_no_song_id_has_no_key(song_id: str):
    with pytest.raises(ValueError, match="is not a song id"):
        table_key(TABLES["stems"], song_id)


def test_a_songs_file_is_named_by_its_id():
    assert table_key(TABLES["stems"], "take-five-0123456789ab") == "stems/take-five-0123456789ab.parquet"


OLDER = {
    "songs": (
        *("title", "artist", "album", "genre", "error"),
        *("bad_packets", "lost_s", "warning", "audio_stream", "audio_streams", "true_peak_dbtp"),
    ),
    "decoded_waveforms": ("gain", "error"),
    "stems": ("gain", "error"),
    "instrument_tags": ("mapped", "answer", "note", "level_dbfs"),
    "stem_instrument_tags": ("mapped", "answer", "note", "level_dbfs"),
}
"""The last columns of each table, which files of an imagined earlier version lack: changes only append."""


def earlier(table: Table) -> Table:
    """The table before its last columns were added."""
    columns = tuple(column for column in table.columns if column.name not in OLDER[table.name])
    assert columns == table.columns[: len(columns)]
    return replace(table, version=table.version - 1, columns=columns)


def later(table: Table) -> Table:
    """The table with a column that a later version may add."""
    mood = Column("mood", pa.string(), "The mood", "calm")
    return replace(table, version=table.version + 1, columns=(*table.columns, mood))


def write_song(store: ObjectStore, song: str, tables: Mapping[str, Table]) -> None:
    """Write all files of a song with other definitions of the tables."""

    def rows(table: Table, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value.get(name) for name in table.names} for value in values]

    songs, waveforms, stems = (tables[table.name] for table in (SONGS, DECODED_WAVEFORMS, STEMS))
    write_table(store, songs, rows(songs, [song_row(song, title="Night Bus")]), lineage(song))
    for table, names in ((waveforms, ("mixture",)), (stems, ("vocals", "drums"))):
        with AudioTableWriter(store, table, lineage(song)) as writer:
            writer.add(rows(table, block_rows(song, 0, names, seconds=0.1)))
            writer.commit()
    for name, source in ((INSTRUMENT_TAGS.name, "mixture"), (STEM_INSTRUMENT_TAGS.name, "vocals")):
        table = tables[name]
        values = [tag_row(song, "guitar", 0.5, 0.0, source=source)]
        write_table(store, table, rows(table, values), lineage(song))


@pytest.fixture
def ages(tmp_path) -> ObjectStore:
    """A store with a song of the previous version, one of this version, and one of the next."""
    store = open_store(str(tmp_path))
    write_song(store, "older", {name: earlier(TABLES[name]) for name in OLDER})
    write_song(store, "present", TABLES)
    write_song(store, "newer", {name: later(TABLES[name]) for name in OLDER})
    return store


@pytest.mark.parametrize("name", OLDER)
def test_a_file_says_which_version_its_columns_have(name: str, ages: ObjectStore):
    versions = {
        song: Maker.of(read_footer(ages, TABLES[name], song)).table_version
        for song in ("older", "present", "newer")
    }
    now = TABLES[name].version
    assert versions == {"older": now - 1, "present": now, "newer": now + 1}


@pytest.mark.parametrize("name", OLDER)
def test_files_of_all_versions_are_read_with_the_columns_of_this_one(name: str, ages: ObjectStore):
    table = TABLES[name]
    for song in ("older", "present", "newer"):
        found = read_table(ages, table, song)
        assert found.schema == table.schema
        some = ["song_id", table.names[-1]]
        assert read_table(ages, table, song, some).column_names == some
        lacking = OLDER[name] if song == "older" else ()
        assert all(found.column(column).null_count == found.num_rows for column in lacking)
    assert query(ages, f"SELECT * FROM {name}").columns == list(table.names)
    files = list_song_files(ages, [table])
    rows = files.read(table, lambda rows: rows)
    assert rows.columns == list(table.names)
    assert set(rows["song_id"]) == {"older", "present", "newer"}


@pytest.mark.parametrize("table", [DECODED_WAVEFORMS, STEMS], ids=lambda table: table.name)
def test_the_blocks_of_an_older_file_are_read_and_it_is_no_fault_to_be_old(table: Table, ages: ObjectStore):
    (rows,) = read_blocks(ages, table, "older")
    assert [(set(row) == set(table.names), row["error"], row["gain"]) for row in rows] == [
        (True, None, None)
    ] * len(rows)
    stored = read_stored_file(ages, table, "older")
    assert stored is not None and not any("columns" in fault for fault in stored.faults)


def test_catalogs_and_pages_are_made_of_files_of_all_versions(ages: ObjectStore):
    for catalog in CATALOGS:
        refreshed(ages, catalog)
    songs = {row["song_id"]: row for row in rows_of(ages, SONG_CATALOG)}
    assert songs["older"]["title"] is None and songs["newer"]["title"] == "Night Bus"
    assert [songs[song]["instruments"][0]["instrument"] for song in ("older", "newer")] == ["guitar"] * 2
    for song in songs:
        facts = read_facts(ages, song, PRESENT_FROM)
        assert facts is not None and facts.sources == ("mixture", "vocals", "drums")


@pytest.mark.parametrize("catalog", CATALOGS, ids=lambda catalog: catalog.table.name)
def test_a_catalog_says_which_version_its_columns_have(catalog, ages: ObjectStore):
    refreshed(ages, catalog)
    key = schemas.catalog_key(catalog.table)
    with ages.open(key) as file:
        assert Maker.of(pq.read_metadata(file)).table_version == catalog.table.version


def test_an_older_catalog_answers_until_it_is_refreshed(ages: ObjectStore):
    before = replace(SONG_CATALOG, version=0, columns=SONG_CATALOG.columns[:-2])
    with ages.create(schemas.catalog_key(SONG_CATALOG)) as pending:
        row = dict.fromkeys(before.names) | {"song_id": "older", "status": "ok"}
        pq.write_table(pa.Table.from_pylist([row], schema=before.schema), pending.file)
    assert query(ages, "SELECT status, instruments FROM song_catalog").rows() == [("ok", None)]
