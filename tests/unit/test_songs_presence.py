"""songs/presence: which instruments are present, by the rule of their tagger."""

from typing import Any

import polars as pl
import pytest
from song_rows import tag_row

from bandscope_dagster.songs.presence import (
    all_instruments,
    as_setting,
    instruments_of,
    judged,
    present_windows,
)
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_TAGS
from bandscope_dagster.storage.tables.song_tables import arrow_table
from bandscope_dagster.tagging.presence_rule import PresenceRule, PresentFrom

QUARTER: PresentFrom = {
    "tagger": PresenceRule(
        0.5, {"harp": 0.3, "electric guitar": 0.6, "distorted guitar": 0.2}, best_share=0.25
    ),
    None: PresenceRule(0.5),
}
EACH_WINDOW: PresentFrom = {None: PresenceRule(0.5)}


def rows_of(instrument: str, *scores: float | None, **changes: Any) -> list[dict[str, Any]]:
    """One row per window of 3 s, from the beginning of the song; no row where the score is None."""
    return [
        tag_row("song", instrument, score, 3.0 * number, **changes)
        for number, score in enumerate(scores)
        if score is not None
    ]


def table(*rows: dict[str, Any]) -> pl.LazyFrame:
    return pl.DataFrame(arrow_table(INSTRUMENT_TAGS, rows)).lazy()


def present(rules: PresentFrom, *rows: dict[str, Any]) -> dict[str, int]:
    """Instrument → the number of windows in which it is present, without those that are absent."""
    found = instruments_of(table(*rows), rules).filter(pl.col("windows") > 0).collect()
    return dict(found.select("instrument", "windows").rows())


def test_an_instrument_is_present_where_its_score_reaches_the_bound_of_its_label() -> None:
    assert present(QUARTER, *rows_of("harp", 0.3, 0.29), *rows_of("flute", 0.5, 0.49)) == {
        "harp": 1,
        "flute": 1,
    }
    assert present(QUARTER, *rows_of("harp", 0.29), *rows_of("flute", 0.49)) == {}


def test_one_stray_window_of_a_long_song_does_not_make_an_instrument_present() -> None:
    stray = rows_of("flute", 0.9, *[0.0] * 7)
    assert present(QUARTER, *stray) == {}
    assert present(EACH_WINDOW, *stray) == {"flute": 1}


def test_a_short_song_is_judged_by_as_many_windows_as_the_rule_wants_at_least() -> None:
    three: PresentFrom = {None: PresenceRule(0.5, best_share=0.25, fewest=3)}
    assert present(three, *rows_of("flute", 0.9, 0.3, 0.0, 0.0)) == {}
    assert present(three, *rows_of("flute", 0.9, 0.4, 0.3, 0.0)) == {"flute": 1}
    assert present(three, *rows_of("flute", 0.7, 0.4)) == {"flute": 1}  # the song has two windows


def test_an_instrument_that_plays_in_a_quarter_of_the_song_is_present_in_its_windows() -> None:
    assert present(QUARTER, *rows_of("flute", 0.9, 0.4, 0.6, *[0.0] * 5)) == {"flute": 2}


def test_the_quarter_is_of_all_tagged_windows_also_of_those_without_a_row_of_the_instrument() -> None:
    others = rows_of("harp", *[0.0] * 8)
    assert present(QUARTER, *rows_of("flute", 0.9), *others) == {}
    assert present(QUARTER, *rows_of("flute", 0.9, 0.5), *others) == {"flute": 2}


def test_windows_that_were_not_tagged_are_not_counted() -> None:
    lost = [tag_row("song", None, None, 3.0 * n, error="unparseable: no list") for n in range(1, 12)]
    assert present(QUARTER, *rows_of("flute", 0.9), *lost) == {"flute": 1}


def test_the_quarter_is_rounded_up_to_whole_windows() -> None:
    assert present(QUARTER, *rows_of("flute", 0.6, 0.0, 0.0, 0.0)) == {"flute": 1}
    assert present(QUARTER, *rows_of("flute", 0.6, 0.0, 0.0, 0.0, 0.0)) == {}


def test_each_source_is_judged_by_its_own_windows() -> None:
    stem = rows_of("flute", 0.9, source="vocals")
    found = instruments_of(table(*rows_of("flute", 0.9, *[0.0] * 7), *stem), QUARTER).collect()
    assert dict(found.select("source", "windows").rows()) == {"mixture": 0, "vocals": 1}


def test_other_taggers_keep_one_bound_for_each_window() -> None:
    assert present(QUARTER, *rows_of("flute", 0.9, *[0.0] * 7, model="musicnn")) == {"flute": 1}
    assert present(QUARTER, *rows_of("harp", 0.4, model="musicnn")) == {}


def test_two_labels_of_one_instrument_have_a_bound_each() -> None:
    clean = rows_of("guitar", 0.55, 0.55, label="electric guitar")
    distorted = rows_of("guitar", None, None, 0.3, 0.3, label="distorted guitar")
    assert present(QUARTER, *clean) == {}
    assert present(QUARTER, *clean, *distorted) == {"guitar": 2}


def test_an_instrument_without_scores_is_present_wherever_it_is_named() -> None:
    named = [tag_row("song", "flute", None, start, model="qwen2.5-omni") for start in (0.0, 30.0)]
    assert present(QUARTER, *named) == {"flute": 2}
    assert judged(table(*named), QUARTER).collect()["song_score"].to_list() == [None]


def test_the_score_in_a_song_is_the_mean_of_the_best_quarter_or_of_all_windows() -> None:
    rows = rows_of("flute", 0.1, 0.8, 0.6, 0.2, 0.1)
    ours, others = (
        judged(table(*rows), rules).collect()["song_score"].item() for rules in (QUARTER, EACH_WINDOW)
    )
    assert ours == pytest.approx(0.7)
    assert others == pytest.approx(1.8 / 5)


def test_the_windows_of_a_picture_are_those_of_the_catalog_with_their_bounds() -> None:
    rows = [*rows_of("harp", 0.3, 0.1, 0.4), *rows_of("flute", 0.9, *[0.0] * 7)]
    found = present_windows(table(*rows), QUARTER).sort("start_s").collect()
    assert present(QUARTER, *rows) == {"harp": 2}
    assert found.select("instrument", "start_s", "score", "bound").rows() == [
        ("harp", 0.0, pytest.approx(0.3), 0.3),
        ("harp", 6.0, pytest.approx(0.4), 0.3),
    ]


def stem_of(name: str, instrument: str, *levels: float | None) -> list[dict[str, Any]]:
    """Windows of a stem at these levels in dBFS, in which the instrument has the score 0.9."""
    rows = rows_of(instrument, *[0.9 for _ in levels], source=name)
    return [row | {"level_dbfs": level} for row, level in zip(rows, levels, strict=True)]


def test_what_a_separator_leaves_in_a_stem_that_the_song_does_not_have_is_not_present() -> None:
    speech = stem_of("vocals", "spoken word", *[-20.0] * 4)
    assert present(QUARTER, *speech, *stem_of("accompaniment", "guitar", *[-46.0] * 4)) == {"spoken word": 4}
    assert present(QUARTER, *speech, *stem_of("accompaniment", "guitar", *[-44.0] * 4)) == {
        "spoken word": 4,
        "guitar": 4,
    }


def test_a_voice_in_an_audible_stem_counts_even_if_the_mixture_is_not_tagged_with_it() -> None:
    found = instruments_of(
        table(*rows_of("guitar", 0.9, 0.9), *stem_of("vocals", "vocals", -30.0, -30.0)), QUARTER
    )
    heard = all_instruments(found).collect()["instruments"].explode().struct.unnest()
    assert dict(heard.select("instrument", "sources").rows()) == {"guitar": ["mixture"], "vocals": ["vocals"]}


def test_a_stem_counts_only_in_the_windows_in_which_it_is_audible() -> None:
    band = stem_of("other", "piano", *[-20.0] * 4)
    sung = stem_of("vocals", "vocals", -25.0, -60.0, -60.0, -25.0)
    assert present(QUARTER, *band, *sung) == {"piano": 4, "vocals": 2}
    found = instruments_of(table(*band, *sung), QUARTER).filter(pl.col("instrument") == "vocals").collect()
    assert found.select("first_s", "last_s").row(0) == (0.0, 12.0)
    assert len(found["intervals"].item()) == 2


def test_one_loud_window_of_a_soft_stem_is_as_little_as_one_stray_window() -> None:
    band = stem_of("other", "piano", *[-20.0] * 8)
    assert present(QUARTER, *band, *stem_of("vocals", "flute", -25.0, *[-60.0] * 7)) == {"piano": 8}


def test_a_soft_passage_of_the_mixture_counts_and_its_fade_does_not() -> None:
    assert present(EACH_WINDOW, *stem_of("mixture", "flute", -10.0, -50.0, -70.0)) == {"flute": 2}


def test_windows_from_before_levels_were_measured_are_audible() -> None:
    old = [*stem_of("vocals", "vocals", None, None), *stem_of("accompaniment", "guitar", None, None)]
    assert present(QUARTER, *old) == {"vocals": 2, "guitar": 2}


def test_the_bound_of_audible_stems_can_be_set() -> None:
    soft = [*stem_of("vocals", "vocals", -10.0), *stem_of("accompaniment", "guitar", -50.0)]
    found = [present({None: PresenceRule(0.5, audible_db=bound)}, *soft) for bound in (-30, -60)]
    assert found == [{"vocals": 1}, {"vocals": 1, "guitar": 1}]


def test_a_language_model_names_nothing_in_a_stem_that_cannot_be_heard() -> None:
    named = [tag_row("song", "flute", None, 0.0, source=source) for source in ("vocals", "accompaniment")]
    named[1] |= {"instrument": "guitar", "level_dbfs": -60.0}
    assert present(EACH_WINDOW, *named) == {"flute": 1}


def test_a_rule_as_a_setting_has_everything_that_rows_depend_on() -> None:
    assert as_setting(EACH_WINDOW) == {"*": 0.5}
    assert as_setting(QUARTER) == {
        "tagger": {
            "bound": 0.5,
            "bounds": {"harp": 0.3, "electric guitar": 0.6, "distorted guitar": 0.2},
            "best_share": 0.25,
            "fewest": 1,
            "audible_db": -25.0,
        },
        "*": 0.5,
    }
