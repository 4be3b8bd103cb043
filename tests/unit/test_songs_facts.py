"""The facts about a song agree with the catalogs."""

import io

import polars as pl
import pytest
from page_songs import PRESENT_FROM, noise, store_song
from song_rows import lineage, song_row, tag_row

from bandscope_dagster.catalogs.instrument_catalog import instrument_catalog
from bandscope_dagster.catalogs.refresh import refresh
from bandscope_dagster.catalogs.song_catalog import song_catalog
from bandscope_dagster.songs.facts import SongFacts, read_facts
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import ANALYSIS_TABLES, SONGS, STEMS
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table


@pytest.fixture
def local(tmp_path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def facts_of(store: ObjectStore, song_id: str) -> SongFacts:
    facts = read_facts(store, song_id, PRESENT_FROM)
    assert facts is not None
    return facts


def catalog(store: ObjectStore, name: str) -> pl.DataFrame:
    keys = [found.key for found in store.list(name) if found.key.endswith(".parquet")]
    return pl.concat([pl.read_parquet(io.BytesIO(store.read(key))) for key in keys])


def test_every_status_is_the_same_as_in_the_catalog(local: ObjectStore) -> None:
    def with_error(song: str, error: str, passed_on: str) -> None:
        write_table(local, SONGS, [song_row(song, error=error or None)], lineage(song))
        for table in ANALYSIS_TABLES:
            write_error_row(local, table, song, passed_on, lineage(song))

    store_song(local, "ok", {"a": noise(1)})
    store_song(local, "no-stems", {"a": noise(1)})
    local.delete("stems/no-stems.parquet")
    store_song(
        local, "lost-window", {"a": noise(1)}, [tag_row("lost-window", "x", 0.5, 0.0) | {"error": "e: f"}]
    )
    store_song(local, "rejected-later", {"a": noise(1)})
    write_error_row(local, STEMS, "rejected-later", "not_finite: stems", lineage("rejected-later"))
    write_table(local, SONGS, [song_row("new")], lineage("new"))
    with_error("rejected", "empty: nothing", "upstream: empty: nothing")
    with_error("failed", "unavailable: no answer", "upstream: unavailable: no answer")
    with_error("stale", "", "upstream: empty: nothing")
    list(refresh(local, [song_catalog(PRESENT_FROM, "1")]))
    wanted = dict(catalog(local, "song_catalog").select("song_id", "status").iter_rows())
    assert set(wanted.values()) == {"ok", "partial", "rejected", "failed"}
    assert {song: facts_of(local, song).status for song in wanted} == wanted


def test_the_instruments_are_the_present_ones_of_the_catalog(local: ObjectStore) -> None:
    tags = [
        tag_row("song", "guitar", 0.9, 0.0),
        tag_row("song", "guitar", 0.3, 3.0, layer="foreground"),
        tag_row("song", "guitar", 0.1, 6.0),
        tag_row("song", "piano", 0.1, 0.0),
        tag_row("song", "flute", None, 3.0, source="vocals", family=None),
    ]
    store_song(local, "song", {"vocals": noise(9)}, tags)
    list(refresh(local, [instrument_catalog(PRESENT_FROM, "1")]))
    rows = catalog(local, "instrument_catalog").filter(pl.col("windows") > 0)
    found = facts_of(local, "song").instruments
    assert {(i.source, i.name, i.family, i.layer, i.score, i.seconds) for i in found} == set(
        rows.select("source", "instrument", "family", "layer", "score", "seconds_present").iter_rows()
    )
    guitar = next(i for i in found if i.name == "guitar")
    assert [(i.start_s, i.end_s, round(i.score or 0, 3)) for i in guitar.intervals] == [(0.0, 6.0, 0.9)]


def test_sources_have_no_error_and_the_duration_is_that_of_their_blocks(local: ObjectStore) -> None:
    store_song(local, "song", {"vocals": noise(11), "bass": noise(11, 0.5)})
    facts = facts_of(local, "song")
    assert (facts.sources, facts.frames, facts.seconds) == (("mixture", "vocals", "bass"), 11 * 44_100, 11.0)
    write_error_row(local, STEMS, "song", "not_finite: stems", lineage("song"))
    assert facts_of(local, "song").sources == ("mixture",)


def test_a_song_in_no_table_has_no_facts(local: ObjectStore) -> None:
    assert read_facts(local, "unknown", PRESENT_FROM) is None
