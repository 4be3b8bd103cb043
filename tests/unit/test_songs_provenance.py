"""The origin of a song's files, with digests of the real planner, and remarks on files that do not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
from planned_songs import PLANNER, ROW, make, validate
from song_rows import lineage

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.pipeline.failures import FailureLog
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES
from bandscope_dagster.songs.provenance import SongOrigin, trace
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_TABLES, SONGS, STEMS, TABLES, table_key
from bandscope_dagster.storage.tables.song_tables import write_table


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def remarks(origin: SongOrigin) -> dict[str, tuple[str, ...]]:
    return {table.table: table.remarks for table in origin.tables if table.remarks}


def test_a_song_from_one_run_has_no_remarks(store: ObjectStore) -> None:
    validate(store)
    make(store)
    origin = trace(store, "song")
    assert [table.table for table in origin.tables] == [table.name for table in SONG_TABLES]
    assert remarks(origin) == {}
    assert origin.song == ROW
    stems = origin.tables[2]
    assert stems.lineage is not None and stems.maker is not None
    assert (stems.lineage.model, stems.lineage.model_sha256) == ("separator", "11" * 32)
    assert stems.maker.table_version == STEMS.version
    assert stems.computed_on == {"device": "cpu", "batch": 1, "segment": 343_980}
    assert origin.tables[3].computed_on == {"device": "cpu", "batch": 2}
    assert origin.tables[1].computed_on is None


def test_tags_computed_later_from_the_stored_stems_fit_them(store: ObjectStore) -> None:
    validate(store)
    make(store, "stems")
    make(store, "stem_instrument_tags", planner=replace(PLANNER, run_id="another"))
    assert remarks(trace(store, "song")) == {}


def test_tags_from_other_stems_than_the_stored_ones_get_a_remark(store: ObjectStore) -> None:
    validate(store)
    make(store)
    other = replace(PLANNER, separator=ModelIdentity("better", "44" * 32))
    make(store, "stems", planner=other)
    [(table, (remark,))] = remarks(trace(store, "song")).items()
    assert table == "stem_instrument_tags"
    assert remark.startswith("computed from other stems than the stored ones (better, ")
    store.delete(table_key(STEMS, "song"))
    assert remarks(trace(store, "song")) == {"stem_instrument_tags": ("its stems are no longer stored",)}


@pytest.mark.parametrize(
    "tagger",
    [
        ModelIdentity("other", "22" * 32, PLANNER.tagger.params),
        ModelIdentity("tagger", "55" * 32, PLANNER.tagger.params),
        ModelIdentity("tagger", "22" * 32, {"hop": 2}),
    ],
    ids=["name", "weights", "parameters"],
)
def test_stems_and_mixture_tagged_by_different_models_get_a_remark(
    tagger: ModelIdentity, store: ObjectStore
) -> None:
    validate(store)
    make(store)
    make(store, "instrument_tags", planner=replace(PLANNER, tagger=tagger))
    [(table, (remark,))] = remarks(trace(store, "song")).items()
    assert table == "stem_instrument_tags"
    assert remark.startswith("its tagger, weights or parameters differ from instrument_tags (")


def test_files_from_other_bytes_of_the_upload_get_a_remark(store: ObjectStore) -> None:
    make(store, "decoded_waveforms", "instrument_tags", row=ROW | {"song_hash": "cd" * 32})
    validate(store)
    assert remarks(trace(store, "song")) == dict.fromkeys(
        ("decoded_waveforms", "instrument_tags"),
        (f"computed from an upload with other bytes (SHA-256 {'cd' * 32})",),
    )


def test_a_digest_that_does_not_match_its_inputs_gets_a_remark(store: ObjectStore) -> None:
    validate(store)
    make(store, "decoded_waveforms", "stems", "instrument_tags", input_digest="00" * 32)
    write_table(store, SONGS, [ROW], lineage("song", song_hash="ab" * 32, code_version="1"))
    assert remarks(trace(store, "song")) == dict.fromkeys(
        ("songs", "decoded_waveforms", "stems", "instrument_tags"),
        ("its input digest does not match its upload, model and parameters: another version computed it",),
    )


def test_files_from_older_code_get_a_remark(store: ObjectStore) -> None:
    validate(store)
    make(store, "stems", code_version="1")
    assert remarks(trace(store, "song")) == {
        "stems": ("computed by code version 1; the current version is 2",)
    }


def test_the_row_of_a_rejection_fits_until_songs_has_no_error(store: ObjectStore) -> None:
    rejected = ROW | {"error": "truncated: 1 of 2 s"}
    validate(store, rejected)
    make(store, row=rejected)
    assert remarks(trace(store, "song")) == {}
    validate(store)
    assert remarks(trace(store, "song")) == dict.fromkeys(
        ANALYSIS_TABLES, ("contains an error of the upload that songs no longer has",)
    )


@pytest.mark.parametrize("error", ["truncated: 1 of 2 s", "unavailable: no answer"])
def test_results_older_than_an_error_of_the_upload_get_a_remark(error: str, store: ObjectStore) -> None:
    make(store, "stems")
    validate(store, ROW | {"error": error})
    assert remarks(trace(store, "song")) == {
        "stems": (f"computed before songs recorded an error of the upload ({error})",)
    }


def test_a_failure_of_the_last_run_is_a_remark_beside_the_stored_files(store: ObjectStore) -> None:
    validate(store)
    make(store, "decoded_waveforms")
    FailureLog(store, "run-2").failed("song", ["stems"], "failed: out of memory")
    origin = trace(store, "song")
    assert remarks(origin) == {"stems": ("the last run could not compute it: failed: out of memory",)}
    assert origin.tables[-1].table == "song_failures"
    assert origin.tables[-1].lineage is not None and origin.tables[-1].lineage.run_id == "run-2"


def test_a_damaged_row_of_songs_and_files_without_a_row_get_a_remark(store: ObjectStore) -> None:
    make(store, "decoded_waveforms")
    with store.create("songs/song.parquet") as pending:
        pending.write(b"PAR1 no more")
    found = remarks(trace(store, "song"))
    assert "songs/song.parquet cannot be read" in found["songs"][0]
    assert found["decoded_waveforms"] == ("songs has no row for this song, so the upload cannot be compared",)


def test_a_file_with_older_columns_gets_a_remark(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    validate(store)
    newer = replace(SONGS, version=SONGS.version + 1)
    monkeypatch.setitem(TABLES, "songs", newer)
    assert remarks(trace(store, "song")) == {
        "songs": (f"has the columns of version {SONGS.version}; the current version is {newer.version}",)
    }


def test_an_unknown_song_has_no_files(store: ObjectStore) -> None:
    origin = trace(store, "unknown")
    assert not origin.has_files and origin.song is None
    assert [table.lineage for table in origin.tables] == [None] * len(SONG_TABLES)
