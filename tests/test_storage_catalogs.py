"""The catalogs say of every song what it is, what it holds and how far it got."""

import json
from datetime import timedelta

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from song_rows import NOW, block_rows, lineage, song_row, tag_row

from bandscope_dagster.storage.audio_tables import AudioTableWriter
from bandscope_dagster.storage.catalogs import (
    build_instrument_catalog,
    build_song_catalog,
    build_song_errors,
)
from bandscope_dagster.storage.lineage import QUALITY_NOTE
from bandscope_dagster.storage.objects import ObjectStore, open_store
from bandscope_dagster.storage.schemas import (
    ANALYSIS_TABLES,
    CATALOG_TABLES,
    DECODED_WAVEFORMS,
    INSTRUMENT_TAGS,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
)
from bandscope_dagster.storage.tables import read_table, write_error_row, write_table

PRESENT_FROM = {None: 0.2}


def read(store: ObjectStore, written) -> list[dict]:
    with store.open(written.key) as file:
        rows = pq.read_table(file).to_pylist()
    assert len(rows) == written.rows
    return rows


QUALITY = {
    "residual_db": -41.5,
    "stems": [
        {
            "stem": "vocals",
            "share": 1.0,
            "peak": 0.5,
            "rms_dbfs": -20.0,
            "loudness_lufs": -18.5,
            "silent": False,
        },
        {"stem": "drums", "share": 0.0, "peak": 0.0, "rms_dbfs": None, "loudness_lufs": None, "silent": True},
    ],
}


def analyze(store: ObjectStore, song: str, tags=(), stem_tags=(), quality=None) -> None:
    """Give the song all that a whole analysis leaves; without a quality, as one of before there was any."""
    write_table(store, SONGS, [song_row(song)], lineage(song))
    for table, names in ((DECODED_WAVEFORMS, ("mixture",)), (STEMS, ("vocals", "accompaniment"))):
        with AudioTableWriter(store, table, lineage(song)) as writer:
            for block in range(2):
                rows = block_rows(song, block, names, seconds=0.1)
                writer.add([{name: row[name] for name in table.names} for row in rows])
            writer.commit({QUALITY_NOTE: json.dumps(quality)} if quality and table is STEMS else {})
    write_table(store, INSTRUMENT_TAGS, list(tags), lineage(song))
    write_table(store, STEM_INSTRUMENT_TAGS, list(stem_tags), lineage(song))


def reject(store: ObjectStore, song: str, error: str) -> None:
    write_table(store, SONGS, [song_row(song, error=error)], lineage(song))
    for table in ANALYSIS_TABLES:
        write_error_row(store, table, song, f"upstream: {error}", lineage(song))


def test_an_empty_store_has_empty_catalogs_with_the_right_columns(store: ObjectStore):
    built = (
        build_song_catalog(store, PRESENT_FROM),
        build_instrument_catalog(store, PRESENT_FROM),
        build_song_errors(store),
    )
    for table, written in zip(CATALOG_TABLES, built, strict=True):
        assert written.key == f"{table.name}/{table.name}.parquet"
        assert written.rows == 0
        with store.open(written.key) as file:
            schema = pq.read_schema(file)
        assert schema.equals(table.schema)
        assert all(field.metadata[b"description"] for field in schema)


def test_every_song_has_the_status_that_its_tables_tell(store: ObjectStore):
    analyze(store, "whole")
    analyze(store, "half")
    store.delete("stems/half.parquet")
    write_table(store, SONGS, [song_row("new")], lineage("new"))
    reject(store, "broken", "truncated: 3 of 10 s decode")
    reject(store, "away", "unavailable: the storage does not answer")
    analyze(store, "not-finite")
    write_error_row(store, STEMS, "not-finite", "not_finite: the stems", lineage("not-finite"))
    analyze(store, "mended")  # was rejected once; only one table was made again since
    write_error_row(store, STEMS, "mended", "upstream: unavailable: away", lineage("mended"))

    rows = read(store, build_song_catalog(store, PRESENT_FROM))
    assert [row["song_id"] for row in rows] == sorted(row["song_id"] for row in rows)
    assert {row["song_id"]: row["status"] for row in rows} == {
        "whole": "ok",
        "half": "partial",
        "new": "partial",
        "broken": "rejected",
        "away": "failed",
        "not-finite": "rejected",
        "mended": "partial",
    }
    missing = {row["song_id"]: row["missing_tables"] for row in rows}
    assert missing["whole"] == []
    assert missing["half"] == ["stems"]
    assert missing["new"] == [table.name for table in ANALYSIS_TABLES]


def test_stem_energies_are_shares_of_their_sum(store: ObjectStore):
    analyze(store, "song")  # the accompaniment is 6.02 dB below the vocals: a quarter of the energy
    write_table(store, SONGS, [song_row("silent")], lineage("silent"))
    with AudioTableWriter(store, STEMS, lineage("silent")) as writer:
        writer.add([row | {"rms_dbfs": float("-inf")} for row in block_rows("silent", 0, ("drums", "bass"))])
        writer.commit()
    silent, song = sorted(
        read(store, build_song_catalog(store, PRESENT_FROM)), key=lambda row: -len(row["song_id"])
    )
    assert song["stem_energy_share"] == [
        {"stem": "accompaniment", "share": pytest.approx(0.2)},
        {"stem": "vocals", "share": pytest.approx(0.8)},
    ]
    assert song["separator"] == "separator"
    assert silent["stem_energy_share"] == [{"stem": "bass", "share": 0.0}, {"stem": "drums", "share": 0.0}]


def test_the_quality_of_stems_is_read_from_their_footers(store: ObjectStore):
    analyze(store, "measured", quality=QUALITY)
    analyze(store, "of-before")
    analyze(store, "of-later", quality=QUALITY | {"sdr_db": 7.5})
    reject(store, "rejected", "empty: 0 bytes")
    write_table(store, SONGS, [song_row("new")], lineage("new"))
    rows = {row["song_id"]: row for row in read(store, build_song_catalog(store, PRESENT_FROM))}
    for song in ("measured", "of-later"):
        assert rows[song]["residual_db"] == -41.5
        assert rows[song]["stem_quality"] == QUALITY["stems"]
    for song in ("of-before", "rejected", "new"):
        assert rows[song]["residual_db"] is None
        assert rows[song]["stem_quality"] is None
    assert [len(rows[song]["stem_energy_share"] or []) for song in ("measured", "of-before")] == [2, 2]


def test_the_top_instruments_are_the_five_best_that_are_present_in_the_mixture(store: ObjectStore):
    scores = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5, "f": 0.4, "faint": 0.19}
    tags = [tag_row("song", name, score, 0.0) for name, score in scores.items()]
    tags += [tag_row("song", "a", 0.1, 3.0)]  # its mean falls to 0.5
    analyze(store, "song", tags, [tag_row("song", "only-in-a-stem", 1.0, 0.0, source="vocals")])
    (row,) = read(store, build_song_catalog(store, PRESENT_FROM))
    assert [top["instrument"] for top in row["top_instruments"]] == ["b", "c", "d", "a", "e"]
    assert row["top_instruments"][3] == {
        "instrument": "a",
        "family": "strings",
        "score": pytest.approx(0.5),
        "seconds": 3.0,
    }
    assert row["tagger"] == "tagger"


def test_a_model_without_scores_ranks_by_the_seconds_of_presence(store: ObjectStore):
    tags = [tag_row("song", "oboe", None, 0.0)] + [tag_row("song", "viola", None, 3.0 * k) for k in range(3)]
    analyze(store, "song", tags)
    (row,) = read(store, build_song_catalog(store, PRESENT_FROM))
    assert [(top["instrument"], top["seconds"]) for top in row["top_instruments"]] == [
        ("viola", 9.0),
        ("oboe", 3.0),
    ]


def test_an_instrument_is_aggregated_over_its_windows(store: ObjectStore):
    tags = [
        tag_row("song", "guitar", 0.4, 0.0, layer="background"),
        tag_row("song", "guitar", 0.8, 1.5, layer="foreground"),  # overlaps the first by 1.5 s
        tag_row("song", "guitar", 0.6, 1.5, label="fuzz guitar"),  # the same window in other words
        tag_row("song", "guitar", 0.1, 6.0),  # not present
        tag_row("song", "guitar", 0.3, 9.0),
        tag_row("song", None, 0.9, 0.0, label="theremin", family=None),
    ]
    analyze(store, "song", tags, [tag_row("song", "guitar", 0.7, 0.0, source="accompaniment")])
    rows = read(store, build_instrument_catalog(store, PRESENT_FROM))
    assert [(row["instrument"], row["source"]) for row in rows] == [
        ("guitar", "accompaniment"),
        ("guitar", "mixture"),
        ("theremin", "mixture"),
    ]
    guitar = rows[1]
    assert guitar["score"] == pytest.approx((0.4 + 0.8 + 0.1 + 0.3) / 4)
    assert guitar["score_max"] == pytest.approx(0.8)
    assert guitar["seconds_present"] == pytest.approx(4.5 + 3.0)
    assert guitar["windows"] == 3
    assert (guitar["first_s"], guitar["last_s"]) == (0.0, 12.0)
    assert guitar["layer"] == "foreground"
    assert guitar["intervals"] == [
        {"start_s": 0.0, "end_s": 4.5, "score": pytest.approx(0.8)},
        {"start_s": 9.0, "end_s": 12.0, "score": pytest.approx(0.3)},
    ]
    assert rows[2]["seconds_present"] == 3.0


def test_an_instrument_that_never_reaches_the_threshold_has_no_seconds(store: ObjectStore):
    analyze(store, "song", [tag_row("song", "harp", 0.05, 0.0)])
    (row,) = read(store, build_instrument_catalog(store, PRESENT_FROM))
    assert (row["seconds_present"], row["windows"], row["first_s"]) == (0.0, 0, None)
    assert row["intervals"] == []


def test_every_tagger_has_a_threshold_of_its_own(store: ObjectStore):
    tags = [tag_row("song", "harp", 0.3, 0.0), tag_row("song", "flute", 0.3, 0.0, model="ast")]
    analyze(store, "song", tags)
    rows = read(store, build_instrument_catalog(store, {"ast": 0.25, None: 0.5}))
    assert {row["instrument"]: row["windows"] for row in rows} == {"harp": 0, "flute": 1}


def test_windows_without_tags_make_a_song_partial_and_are_listed(store: ObjectStore):
    lost = {"label": None, "family": None, "error": "unparseable: no list", "answer": "I hear music."}
    tags = [tag_row("song", "harp", None, 0.0)]
    tags += [tag_row("song", None, None, start, **lost) for start in (3.0, 6.0)]
    tags += [tag_row("song", None, None, 9.0, label=None, family=None, answer="[]")]  # nothing, but no error
    analyze(store, "song", tags)
    (song,) = read(store, build_song_catalog(store, PRESENT_FROM))
    assert song["status"] == "partial"
    assert [top["instrument"] for top in song["top_instruments"]] == ["harp"]
    (row,) = read(store, build_song_errors(store))
    assert (row["table"], row["stage"], row["reason"]) == (
        "instrument_tags",
        "instrument_tags",
        "unparseable",
    )
    assert row["message"] == "2 windows without tags, the first: no list"


def test_errors_are_listed_by_song_and_table_with_the_time_of_their_file(store: ObjectStore):
    analyze(store, "whole")
    reject(store, "broken", "truncated: 3 of 10 s: decode")
    later = NOW + timedelta(days=1)
    write_error_row(store, STEMS, "whole", "not_finite: the stems", lineage("whole", created_at=later))
    rows = read(store, build_song_errors(store))
    assert [(row["song_id"], row["table"]) for row in rows] == [
        ("broken", "songs"),
        *(("broken", table.name) for table in ANALYSIS_TABLES),
        ("whole", "stems"),
    ]
    assert {(row["stage"], row["reason"], row["message"], row["since"]) for row in rows[:5]} == {
        ("songs", "truncated", "3 of 10 s: decode", NOW)
    }
    last = rows[5]
    assert (last["stage"], last["reason"], last["since"]) == ("stems", "not_finite", later)


def test_building_again_replaces_the_file(store: ObjectStore):
    analyze(store, "a")
    first = build_song_catalog(store, PRESENT_FROM)
    analyze(store, "b")
    assert build_song_catalog(store, PRESENT_FROM).rows == 2
    assert [found.key for found in store.list("song_catalog")] == [first.key]


def test_a_file_from_before_a_column_was_added_is_still_read(store: ObjectStore):
    analyze(store, "old")
    table = read_table(store, SONGS, "old").drop_columns(["genre"])
    with store.create("songs/old.parquet") as pending:
        pq.write_table(table, pending.file)
    analyze(store, "young")
    assert [row["genre"] for row in read(store, build_song_catalog(store, PRESENT_FROM))] == [None, None]


def test_a_store_whose_path_holds_brackets_and_stars_is_read(tmp_path):
    store = open_store(str(tmp_path / "My [music] * 100%"))
    analyze(store, "song")
    assert build_song_catalog(store, PRESENT_FROM).rows == 1


def test_polars_and_duckdb_read_the_catalog(tmp_path):
    store = open_store(str(tmp_path))
    analyze(store, "song", [tag_row("song", "harp", 0.9, 0.0)], quality=QUALITY)
    path = build_song_catalog(store, PRESENT_FROM).uri
    assert pl.read_parquet(path)["top_instruments"][0][0]["instrument"] == "harp"
    silent = f"select stem.stem from (select unnest(stem_quality) as stem from '{path}') where stem.silent"
    assert duckdb.sql(silent).fetchall() == [("drums",)]
    assert duckdb.sql(f"select top_instruments[1].instrument from '{path}'").fetchall() == [("harp",)]
