"""Turn tags per window into instruments per song: scores over all windows, and intervals of presence."""

from collections.abc import Mapping
from typing import TypeAlias

import polars as pl

from bandscope_dagster.storage.tables.schemas import INSTRUMENT_CATALOG

TOP_INSTRUMENTS = 5
LAYERS = ("foreground", "middle_ground", "background")  # the foremost first

PresentFrom: TypeAlias = Mapping[str | None, float]
"""Tagger → the lowest score at which an instrument counts as present in a window; None → all other taggers.

If the tagger has no scores, every instrument that it names is present.
"""

_GROUP = ["song_id", "source", "instrument", "family"]


def instruments_of(tags: pl.LazyFrame, present_from: PresentFrom) -> pl.LazyFrame:
    """One row per song, source and instrument, as in ``instrument_catalog``, from the rows of a tag table."""
    # Several labels can mean one instrument. Its window counts once, with the best of their scores.
    windows = (
        tags.filter(pl.col("error").is_null())
        .with_columns(
            pl.coalesce("instrument", "label").alias("instrument"),
            _rank_of_layer(),
        )
        .filter(pl.col("instrument").is_not_null())
        .group_by(*_GROUP, "start_s", "end_s")
        .agg(pl.col("score").max(), pl.col("layer").min(), pl.col("model").first())
    )
    named = windows.group_by(_GROUP).agg(
        pl.col("score").mean(),
        pl.col("score").max().alias("score_max"),
        _foremost_layer(),
        pl.col("model").first(),
    )
    present = windows.filter(pl.col("score").is_null() | (pl.col("score") >= _threshold(present_from)))
    return (
        named.join(_intervals(present), on=_GROUP, how="left", nulls_equal=True)
        .with_columns(pl.col("seconds_present", "windows").fill_null(0), pl.col("intervals").fill_null([]))
        .select(INSTRUMENT_CATALOG.names)
    )


def top_instruments(instruments: pl.LazyFrame) -> pl.LazyFrame:
    """Per song, its tagger and the five best instruments that are present: by mean score, then by seconds."""
    return (
        _best_first(instruments.filter(pl.col("windows") > 0))
        .group_by("song_id", maintain_order=True)
        .agg(
            pl.struct("instrument", "family", "score", pl.col("seconds_present").alias("seconds"))
            .head(TOP_INSTRUMENTS)
            .alias("top_instruments"),
            pl.col("model").first().alias("tagger"),
        )
    )


def all_instruments(instruments: pl.LazyFrame) -> pl.LazyFrame:
    """Per song, all instruments that are present in any source, each once, best first.

    An instrument has its best score and longest presence over the sources, the foremost of its layers, and the
    list of sources in which it is present.
    """
    over_sources = (
        instruments.filter(pl.col("windows") > 0)
        .with_columns(_rank_of_layer())
        .group_by("song_id", "instrument", "family")
        .agg(
            pl.col("score", "seconds_present").max(),
            _foremost_layer(),
            pl.col("source").unique().sort().alias("sources"),
        )
    )
    return (
        _best_first(over_sources)
        .group_by("song_id", maintain_order=True)
        .agg(
            pl.struct(
                "instrument",
                "family",
                "score",
                pl.col("seconds_present").alias("seconds"),
                "layer",
                "sources",
            ).alias("instruments")
        )
    )


def as_setting(present_from: PresentFrom) -> dict[str, float]:
    """``present_from`` for JSON: the threshold of all other taggers has the key ``*``."""
    return {model or "*": score for model, score in present_from.items()}


def _best_first(instruments: pl.LazyFrame) -> pl.LazyFrame:
    order = ["song_id", "score", "seconds_present", "instrument"]
    return instruments.sort(order, descending=[False, True, True, False], nulls_last=True)


def _rank_of_layer() -> pl.Expr:
    return pl.col("layer").replace_strict(LAYERS, range(len(LAYERS)), default=None, return_dtype=pl.Int8)


def _foremost_layer() -> pl.Expr:
    ranks = pl.col("layer").min()
    return ranks.replace_strict(range(len(LAYERS)), LAYERS, default=None, return_dtype=pl.String)


def _threshold(present_from: PresentFrom) -> pl.Expr:
    named = {model: score for model, score in present_from.items() if model is not None}
    others = present_from[None]
    return pl.col("model").replace_strict(named, default=others, return_dtype=pl.Float64)


def _intervals(present: pl.LazyFrame) -> pl.LazyFrame:
    """Join windows that touch or overlap into one interval, with the largest of their scores."""
    before = pl.col("end_s").cum_max().shift(1).over(_GROUP, order_by="start_s")
    apart = (pl.col("start_s") > before).fill_null(True)
    return (
        present.sort(*_GROUP, "start_s", "end_s")
        .with_columns(apart.cum_sum().over(_GROUP, order_by="start_s").alias("interval"))
        .group_by(*_GROUP, "interval")
        .agg(
            pl.col("start_s").min(),
            pl.col("end_s").max(),
            pl.col("score").max(),
            pl.len().alias("windows"),
        )
        .sort(*_GROUP, "interval")
        .group_by(_GROUP, maintain_order=True)
        .agg(
            (pl.col("end_s") - pl.col("start_s")).sum().cast(pl.Float32).alias("seconds_present"),
            pl.col("windows").sum().cast(pl.Int32),
            pl.col("start_s").first().alias("first_s"),
            pl.col("end_s").last().alias("last_s"),
            pl.struct("start_s", "end_s", "score").alias("intervals"),
        )
    )
