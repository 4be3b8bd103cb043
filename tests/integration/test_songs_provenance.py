"""What a song's files say of their origin, under the digests of the real planner; and what no longer fits."""

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


def test_a_song_that_was_made_in_one_go_has_nothing_to_remark(store: ObjectStore) -> None:
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


def test_tags_that_are_made_later_of_the_stored_stems_fit_them(store: ObjectStore) -> None:
    validate(store)
    make(store, "stems")
    make(store, "stem_instrument_tags", planner=replace(PLANNER, run_id="another"))
    assert remarks(trace(store, "song")) == {}


def test_tags_of_other_stems_than_those_that_are_stored_are_told(store: ObjectStore) -> None:
    validate(store)
    make(store)
    other = replace(PLANNER, separator=ModelIdentity("better", "44" * 32))
    make(store, "stems", planner=other)
    (told,) = remarks(trace(store, "song")).items()
    assert told[0] == "stem_instrument_tags"
    assert told[1][0].startswith("made from other stems than those that are stored (better, ")
    store.delete(table_key(STEMS, "song"))
    assert remarks(trace(store, "song")) == {
        "stem_instrument_tags": ("the stems that it was made from are no longer stored",)
    }


@pytest.mark.parametrize(
    "tagger",
    [
        ModelIdentity("other", "22" * 32, PLANNER.tagger.params),
        ModelIdentity("tagger", "55" * 32, PLANNER.tagger.params),
        ModelIdentity("tagger", "22" * 32, {"hop": 2}),
    ],
    ids=["name", "weights", "parameters"],
)
def test_stems_and_mixture_tagged_by_different_models_are_told(
    tagger: ModelIdentity, store: ObjectStore
) -> None:
    validate(store)
    make(store)
    make(store, "instrument_tags", planner=replace(PLANNER, tagger=tagger))
    (told,) = remarks(trace(store, "song")).items()
    assert told[0] == "stem_instrument_tags"
    assert told[1][0].startswith("made by another tagger, weights or parameters than instrument_tags (")


def test_files_of_other_bytes_of_the_upload_are_told(store: ObjectStore) -> None:
    make(store, "decoded_waveforms", "instrument_tags", row=ROW | {"song_hash": "cd" * 32})
    validate(store)
    told = remarks(trace(store, "song"))
    assert told == dict.fromkeys(
        ("decoded_waveforms", "instrument_tags"),
        (f"made from other bytes of the upload, of SHA-256 {'cd' * 32}",),
    )


def test_a_digest_that_does_not_follow_from_its_inputs_is_told(store: ObjectStore) -> None:
    validate(store)
    make(store, "decoded_waveforms", "stems", "instrument_tags", input_digest="00" * 32)
    write_table(store, SONGS, [ROW], lineage("song", song_hash="ab" * 32, code_version="1"))
    told = remarks(trace(store, "song"))
    assert set(told) == {"songs", "decoded_waveforms", "stems", "instrument_tags"}
    assert set(told.values()) == {
        ("its input digest is not that of its upload, model and parameters: another version made it",)
    }


def test_files_of_older_code_are_told(store: ObjectStore) -> None:
    validate(store)
    make(store, "stems", code_version="1")
    assert remarks(trace(store, "song")) == {"stems": ("made by version 1 of its code; the present version is 2",)}


def test_the_row_of_a_rejection_fits_until_songs_says_something_else(store: ObjectStore) -> None:
    rejected = ROW | {"error": "truncated: 1 of 2 s"}
    validate(store, rejected)
    make(store, row=rejected)
    assert remarks(trace(store, "song")) == {}
    validate(store)
    assert remarks(trace(store, "song")) == dict.fromkeys(
        ANALYSIS_TABLES, ("passes on an error of the upload that songs no longer has",)
    )


@pytest.mark.parametrize("error", ["truncated: 1 of 2 s", "unavailable: no answer"])
def test_results_of_before_the_upload_was_found_unusable_are_told(error: str, store: ObjectStore) -> None:
    make(store, "stems")
    validate(store, ROW | {"error": error})
    assert remarks(trace(store, "song")) == {
        "stems": (f"made before songs found that the upload cannot be used ({error})",)
    }


def test_what_the_last_run_could_not_make_is_told_beside_what_is_stored(store: ObjectStore) -> None:
    validate(store)
    make(store, "decoded_waveforms")
    FailureLog(store, "run-2").failed("song", ["stems"], "failed: out of memory")
    origin = trace(store, "song")
    assert remarks(origin) == {"stems": ("the last run could not make it: failed: out of memory",)}
    assert origin.tables[-1].table == "song_failures"
    assert origin.tables[-1].lineage is not None and origin.tables[-1].lineage.run_id == "run-2"


def test_a_song_that_songs_does_not_know_and_a_damaged_file_are_told(store: ObjectStore) -> None:
    make(store, "decoded_waveforms")
    with store.create("songs/song.parquet") as pending:
        pending.write(b"PAR1 no more")
    told = remarks(trace(store, "song"))
    assert "songs/song.parquet was not written by Bandscope" in told["songs"][0]
    assert told["decoded_waveforms"] == (
        "songs has no row of the song, so the upload cannot be compared",
    )


def test_a_file_with_older_columns_is_told(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    validate(store)
    newer = replace(SONGS, version=SONGS.version + 1)
    monkeypatch.setitem(TABLES, "songs", newer)
    assert remarks(trace(store, "song")) == {
        "songs": (f"has the columns of version {SONGS.version}; the present version is {newer.version}",)
    }


def test_a_song_without_files_has_none(store: ObjectStore) -> None:
    origin = trace(store, "nobody")
    assert not origin.has_files and origin.song is None
    assert [table.lineage for table in origin.tables] == [None] * len(SONG_TABLES)
