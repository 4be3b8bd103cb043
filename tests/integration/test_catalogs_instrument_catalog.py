"""The instrument catalog lists the instruments in the mixture and in each stem, with their times."""

import pytest
from catalog_songs import INSTRUMENT_CATALOG, analyze, refreshed
from song_rows import tag_row

from bandscope_dagster.catalogs.instrument_catalog import instrument_catalog
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.presence_rule import PresenceRule


def test_an_instrument_is_aggregated_over_its_windows(store: ObjectStore):
    tags = [
        tag_row("song", "guitar", 0.4, 0.0, layer="background"),
        tag_row("song", "guitar", 0.8, 1.5, layer="foreground"),  # overlaps the first by 1.5 s
        tag_row("song", "guitar", 0.6, 1.5, label="fuzz guitar"),  # the same window with another label
        tag_row("song", "guitar", 0.1, 6.0),  # not present
        tag_row("song", "guitar", 0.3, 9.0),
        tag_row("song", None, 0.9, 0.0, label="theremin", family=None),
    ]
    analyze(store, "song", tags, [tag_row("song", "guitar", 0.7, 0.0, source="accompaniment")])
    rows = refreshed(store, INSTRUMENT_CATALOG)
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
    (row,) = refreshed(store, INSTRUMENT_CATALOG)
    assert (row["seconds_present"], row["windows"], row["first_s"]) == (0.0, 0, None)
    assert row["intervals"] == []


def test_every_tagger_has_its_own_threshold(store: ObjectStore):
    tags = [tag_row("song", "harp", 0.3, 0.0), tag_row("song", "flute", 0.3, 0.0, model="ast")]
    analyze(store, "song", tags)
    rows = refreshed(store, instrument_catalog({"ast": PresenceRule(0.25), None: PresenceRule(0.5)}, "1"))
    assert {row["instrument"]: row["windows"] for row in rows} == {"harp": 0, "flute": 1}
