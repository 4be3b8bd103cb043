"""The song catalog has the properties, stems, instruments and status of every song."""

import polars as pl
import pytest
from catalog_songs import (
    QUALITY,
    SONG_CATALOG,
    analyze,
    refreshed,
    reject,
    tags_with_lost_windows,
)
from song_rows import block_rows, lineage, song_row, tag_row

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.schemas import ANALYSIS_TABLES, SONGS, STEMS
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table


def test_every_song_has_the_status_that_follows_from_its_tables(store: ObjectStore):
    analyze(store, "whole")
    analyze(store, "half")
    store.delete("stems/half.parquet")
    write_table(store, SONGS, [song_row("new")], lineage("new"))
    reject(store, "broken", "truncated: 3 of 10 s decode")
    reject(store, "away", "unavailable: the storage does not answer")
    analyze(store, "not-finite")
    write_error_row(store, STEMS, "not-finite", "not_finite: the stems", lineage("not-finite"))
    analyze(store, "no-longer-rejected")  # only its stems still have the old error
    write_error_row(
        store, STEMS, "no-longer-rejected", "upstream: unavailable: away", lineage("no-longer-rejected")
    )

    rows = refreshed(store, SONG_CATALOG)
    assert [row["song_id"] for row in rows] == sorted(row["song_id"] for row in rows)
    assert {row["song_id"]: row["status"] for row in rows} == {
        "whole": "ok",
        "half": "partial",
        "new": "partial",
        "broken": "rejected",
        "away": "failed",
        "not-finite": "rejected",
        "no-longer-rejected": "partial",
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
    silent, song = sorted(refreshed(store, SONG_CATALOG), key=lambda row: -len(row["song_id"]))
    assert song["stem_energy_share"] == [
        {"stem": "accompaniment", "share": pytest.approx(0.2)},
        {"stem": "vocals", "share": pytest.approx(0.8)},
    ]
    assert song["separator"] == "separator"
    assert silent["stem_energy_share"] == [{"stem": "bass", "share": 0.0}, {"stem": "drums", "share": 0.0}]


def test_the_quality_of_stems_is_read_from_their_footers(store: ObjectStore):
    analyze(store, "measured", quality=QUALITY)
    analyze(store, "older")
    analyze(store, "newer", quality=QUALITY | {"sdr_db": 7.5})
    reject(store, "rejected", "empty: 0 bytes")
    write_table(store, SONGS, [song_row("new")], lineage("new"))
    rows = {row["song_id"]: row for row in refreshed(store, SONG_CATALOG)}
    for song in ("measured", "newer"):
        assert rows[song]["residual_db"] == -41.5
        assert rows[song]["stem_quality"] == QUALITY["stems"]
    for song in ("older", "rejected", "new"):
        assert rows[song]["residual_db"] is None
        assert rows[song]["stem_quality"] is None
    assert [len(rows[song]["stem_energy_share"] or []) for song in ("measured", "older")] == [2, 2]


def test_the_top_instruments_are_the_five_best_that_are_present_in_the_mixture(store: ObjectStore):
    scores = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5, "f": 0.4, "faint": 0.19}
    tags = [tag_row("song", name, score, 0.0) for name, score in scores.items()]
    tags += [tag_row("song", "a", 0.1, 3.0)]  # its mean falls to 0.5
    analyze(store, "song", tags, [tag_row("song", "only-in-a-stem", 1.0, 0.0, source="vocals")])
    (row,) = refreshed(store, SONG_CATALOG)
    assert [top["instrument"] for top in row["top_instruments"]] == ["b", "c", "d", "a", "e"]
    assert row["top_instruments"][3] == {
        "instrument": "a",
        "family": "strings",
        "score": pytest.approx(0.5),
        "seconds": 3.0,
    }
    assert row["tagger"] == "tagger"


def test_a_song_without_a_present_instrument_names_its_tagger(store: ObjectStore):
    analyze(store, "song", [tag_row("song", "faint", 0.19, 0.0)])
    (row,) = refreshed(store, SONG_CATALOG)
    assert (row["tagger"], row["top_instruments"], row["instruments"]) == ("tagger", None, [])


def test_instruments_without_scores_are_sorted_by_seconds_of_presence(store: ObjectStore):
    tags = [tag_row("song", "oboe", None, 0.0)] + [tag_row("song", "viola", None, 3.0 * k) for k in range(3)]
    analyze(store, "song", tags)
    (row,) = refreshed(store, SONG_CATALOG)
    assert [(top["instrument"], top["seconds"]) for top in row["top_instruments"]] == [
        ("viola", 9.0),
        ("oboe", 3.0),
    ]


def test_windows_without_tags_make_a_song_partial(store: ObjectStore):
    analyze(store, "song", tags_with_lost_windows("song"))
    (song,) = refreshed(store, SONG_CATALOG)
    assert song["status"] == "partial"
    assert [top["instrument"] for top in song["top_instruments"]] == ["harp"]


def test_every_instrument_is_listed_once_with_the_best_of_its_sources(store: ObjectStore):
    tags = [
        tag_row("song", "harp", 0.4, 0.0, layer="background"),
        tag_row("song", "harp", 0.6, 3.0, layer="middle_ground"),
        tag_row("song", "flute", 0.9, 0.0),
        tag_row("song", "faint", 0.1, 0.0),
    ]
    stem_tags = [
        tag_row("song", "harp", 0.8, 0.0, source="accompaniment", layer="foreground"),
        tag_row("song", "vocals", 0.7, 0.0, source="vocals", family="voice"),
        tag_row("song", "flute", 0.1, 0.0, source="vocals"),
    ]
    analyze(store, "song", tags, stem_tags)
    (row,) = refreshed(store, SONG_CATALOG)
    assert row["instruments"] == [
        {"instrument": "flute", "family": "strings", "score": pytest.approx(0.9), "seconds": 3.0}
        | {"layer": None, "sources": ["mixture"]},
        {"instrument": "harp", "family": "strings", "score": pytest.approx(0.8), "seconds": 6.0}
        | {"layer": "foreground", "sources": ["accompaniment", "mixture"]},
        {"instrument": "vocals", "family": "voice", "score": pytest.approx(0.7), "seconds": 3.0}
        | {"layer": None, "sources": ["vocals"]},
    ]


def test_a_song_without_instruments_differs_from_one_that_was_not_tagged(store: ObjectStore):
    analyze(store, "silence")
    analyze(store, "untagged")
    store.delete("instrument_tags/untagged.parquet")
    reject(store, "rejected", "empty: 0 bytes")
    rows = refreshed(store, SONG_CATALOG)
    assert {row["song_id"]: row["instruments"] for row in rows} == {
        "silence": [],
        "untagged": None,
        "rejected": None,
    }


def test_the_catalog_alone_finds_short_songs_with_a_sitar_in_front_and_no_voice(store: ObjectStore):
    sitar = {"instrument": "sitar", "score": 0.5, "start_s": 0.0, "layer": "foreground"}
    songs = {
        "wanted": ([sitar], []),
        "sung": ([sitar], [{"instrument": "choir", "score": 0.9, "start_s": 0.0, "family": "voice"}]),
        "behind": ([sitar | {"layer": "background"}], []),
        "no-sitar": ([sitar | {"instrument": "harp"}], []),
        "silent": ([], []),
    }
    for song, (tags, stem_tags) in songs.items():
        analyze(
            store,
            song,
            [tag_row(song, **tag) for tag in tags],
            [tag_row(song, source="vocals", **tag) for tag in stem_tags],
        )
    analyze(store, "too-long", [tag_row("too-long", **sitar)])
    write_table(store, SONGS, [song_row("too-long", duration_s=100.0)], lineage("too-long"))
    catalog = pl.DataFrame(refreshed(store, SONG_CATALOG))

    heard = pl.element().struct
    in_front = (heard.field("instrument") == "sitar") & (heard.field("layer") == "foreground")
    found = catalog.filter(
        pl.col("duration_s") < 100,
        pl.col("instruments").list.eval(in_front).list.any(),
        ~pl.col("instruments").list.eval(heard.field("family") == "voice").list.any(),
    )
    assert found["song_id"].to_list() == ["wanted"]
