"""The tables' columns, as analysts were promised them."""

import pyarrow as pa
import pytest

from bandscope_dagster.storage import schemas
from bandscope_dagster.storage.schemas import TABLES, table_key

BLOCK_COLUMNS = "start_frame, frames, sample_rate, channels, peak, rms_dbfs, audio, gain, error"
SONG_COLUMNS = (
    "song_id, song_hash, filename, owner, upload_key, uploaded_at, size_bytes, container, codec, "
    "sample_rate, channels, bit_rate, duration_s, frames, mono_mean, mono_std, peak, loudness_lufs, rms_dbfs, "
    "title, artist, album, genre, error"
)
TAG_COLUMNS = (
    "song_id, source, instrument, family, label, score, start_s, end_s, layer, model, detected_at, error, "
    "mapped, answer, note"
)
CONTRACT = {
    "songs": SONG_COLUMNS,
    "decoded_waveforms": f"song_id, block, {BLOCK_COLUMNS}",
    "stems": f"song_id, block, stem, model, {BLOCK_COLUMNS}",
    "instrument_tags": TAG_COLUMNS,
    "stem_instrument_tags": TAG_COLUMNS,
    "song_failures": "song_id, table, stage, reason, message, since",
    "song_catalog": f"{SONG_COLUMNS}, stem_energy_share, top_instruments, status, missing_tables, "
    "separator, tagger, residual_db, stem_quality, instruments",
    "instrument_catalog": "song_id, source, instrument, family, score, score_max, seconds_present, windows, "
    "first_s, last_s, layer, model, intervals",
    "song_errors": "song_id, table, stage, reason, message, since",
}


def test_the_contract_names_every_table():
    assert list(TABLES) == list(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_table_has_its_columns_in_the_promised_order(name: str):
    assert list(TABLES[name].names) == CONTRACT[name].split(", ")
    assert TABLES[name].schema.names == CONTRACT[name].split(", ")


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_column_is_described_and_only_the_song_is_required(table: schemas.Table):
    assert table.description.endswith(".")
    for field in table.schema:
        assert field.metadata[b"description"]
    assert not table.schema.field("song_id").nullable
    if table in schemas.SONG_TABLES:
        assert [field.name for field in table.schema if not field.nullable] == ["song_id"]


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
    with pytest.raises(ValueError, match="is no song id"):
        table_key(TABLES["stems"], song_id)


def test_a_songs_file_is_named_by_its_id():
    assert table_key(TABLES["stems"], "take-five-0123456789ab") == "stems/take-five-0123456789ab.parquet"
