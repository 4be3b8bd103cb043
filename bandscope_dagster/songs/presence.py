"""Turn tags per window into instruments per song: which are present, their scores, and intervals of presence.

Catalogs, pages, pictures, the command line and the benchmark all use ``judged`` or ``present_windows``.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import polars as pl

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.storage.tables.catalog_columns import NAME_COLUMN
from bandscope_dagster.storage.tables.schemas import INSTRUMENT_CATALOG
from bandscope_dagster.tagging.presence_rule import PresenceRule, PresentFrom

TOP_INSTRUMENTS = 5
LAYERS = ("foreground", "middle_ground", "background")  # the foremost first

_GROUP = ["song_id", "source", "instrument", "family"]


def instruments_of(tags: pl.LazyFrame, present_from: PresentFrom) -> pl.LazyFrame:
    """One row per song, source and instrument, as in ``instrument_catalog`` without the song's name.

    ``tags`` are the rows of a tag table.
    """
    return judged(tags, present_from).select(
        name for name in INSTRUMENT_CATALOG.names if name != NAME_COLUMN.name
    )


def judged(tags: pl.LazyFrame, present_from: PresentFrom) -> pl.LazyFrame:
    """The rows of ``instruments_of`` with ``song_score``, the score by which the instrument is judged in the source.

    It is the mean over the best share of all tagged windows, if the tagger's rule has a share, else the mean over all
    of them; a window without the instrument has score 0. It is null if the tagger has no scores.
    """
    windows = _windows(tags, present_from)
    in_source = _in_source(windows)
    return (
        in_source.join(_intervals(_present(windows, in_source)), on=_GROUP, how="left", nulls_equal=True)
        .with_columns(pl.col("seconds_present", "windows").fill_null(0), pl.col("intervals").fill_null([]))
        .with_columns(_foremost_layer())
    )


def present_windows(tags: pl.LazyFrame, present_from: PresentFrom) -> pl.LazyFrame:
    """One row per song, source, instrument and window in which it is present, with ``score`` and its ``bound``."""
    windows = _windows(tags, present_from)
    return _present(windows, _in_source(windows)).select(*_GROUP, "start_s", "end_s", "score", "bound")


def top_instruments(instruments: pl.LazyFrame) -> pl.LazyFrame:
    """Per song, its tagger and the five best instruments that are present: by mean score, then by seconds.

    A song in which the tagger found nothing present has a tagger, and null instead of instruments.
    """
    best = (
        _best_first(instruments.filter(pl.col("windows") > 0))
        .group_by("song_id", maintain_order=True)
        .agg(
            pl.struct("instrument", "family", "score", pl.col("seconds_present").alias("seconds"))
            .head(TOP_INSTRUMENTS)
            .alias("top_instruments"),
        )
    )
    taggers = instruments.group_by("song_id").agg(pl.col("model").first().alias("tagger"))
    return taggers.join(best, on="song_id", how="left")


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
            pl.col("layer").min(),
            pl.col("source").unique().sort().alias("sources"),
        )
        .with_columns(_foremost_layer())
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


def as_setting(present_from: PresentFrom) -> dict[str, Any]:
    """``present_from`` for JSON: the rule of all other taggers has the key ``*``. A rule of one bound is a number."""
    return {
        model or "*": rule.bound if rule == PresenceRule(rule.bound) else asdict(rule)
        for model, rule in present_from.items()
    }


def _best_first(instruments: pl.LazyFrame) -> pl.LazyFrame:
    order = ["song_id", "score", "seconds_present", "instrument"]
    return instruments.sort(order, descending=[False, True, True, False], nulls_last=True)


def _rank_of_layer() -> pl.Expr:
    return pl.col("layer").replace_strict(LAYERS, range(len(LAYERS)), default=None, return_dtype=pl.Int8)


def _foremost_layer() -> pl.Expr:
    return pl.col("layer").replace_strict(range(len(LAYERS)), LAYERS, default=None, return_dtype=pl.String)


def _windows(tags: pl.LazyFrame, present_from: PresentFrom) -> pl.LazyFrame:
    """One row per song, source, instrument and window, sorted by ``margin``, by which the score exceeds its bound.

    Several labels can mean one instrument. Its window counts once, with the best of their scores and margins.
    ``best_share`` is that of the tagger's rule, ``best`` the number of windows that ``song_score`` is the mean of.
    Windows in which the source is hardly audible come last, and their scores are 0 in ``heard``.
    """
    share = _by_model(present_from, lambda rule: pl.lit(rule.best_share, pl.Float64))
    fewest = _by_model(present_from, lambda rule: pl.lit(rule.fewest))
    tagged = pl.col("start_s").n_unique().over("song_id", "source")
    return (
        _with_audible(tags.filter(pl.col("error").is_null()), present_from)
        .with_columns(share.alias("best_share"))
        .with_columns(
            pl.max_horizontal(
                (tagged * pl.col("best_share").fill_null(1.0)).ceil(), pl.min_horizontal(tagged, fewest)
            )
            .cast(pl.UInt32)
            .alias("best"),
            pl.coalesce("instrument", "label").alias("instrument"),
            _rank_of_layer(),
            _by_model(present_from, _bound).alias("bound"),
        )
        .filter(pl.col("instrument").is_not_null())
        .with_columns((pl.col("score") - pl.col("bound")).alias("margin"))
        .group_by(*_GROUP, "start_s", "end_s")
        .agg(
            pl.col("score", "margin").max(),
            pl.col("bound", "layer").min(),
            pl.col("best", "best_share", "model", "audible").first(),
        )
        .with_columns(pl.when("audible").then("score").otherwise(0.0 * pl.col("score")).alias("heard"))
        .sort("audible", "margin", descending=True, nulls_last=True)
    )


def _with_audible(tags: pl.LazyFrame, present_from: PresentFrom) -> pl.LazyFrame:
    """Add ``audible``: False in windows that are too soft beside the song. Without a stored level, all are audible.

    The song's level is the mean power over its windows, of the mixture or of all stems together.
    """
    keys = ["song_id", "source", "start_s"]
    is_stem = pl.col("source") != MIXTURE
    power = (10 ** (pl.col("level_dbfs").cast(pl.Float64) / 10)).alias("power")
    levels = (
        tags.group_by(keys)
        .agg(power.first())
        .group_by("song_id", is_stem.alias("is_stem"))
        .agg(pl.col("power").sum() / pl.col("start_s").n_unique())
        .with_columns((10 * pl.col("power").log10()).alias("song_dbfs"))
    )
    above = pl.col("level_dbfs") - pl.col("song_dbfs")
    least = _by_model(
        present_from,
        lambda rule: pl.when("is_stem").then(rule.audible_db).otherwise(rule.audible_in_mixture_db),
    )
    return (
        tags.with_columns(is_stem.alias("is_stem"))
        .join(levels, on=["song_id", "is_stem"], how="left")
        .with_columns((above >= least).fill_null(True).alias("audible"))
    )


def _in_source(windows: pl.LazyFrame) -> pl.LazyFrame:
    """One row per song, source and instrument; ``in_source`` is False if it is absent from the source as a whole."""
    best = pl.col("best").first()
    song_score = pl.col("heard").cast(pl.Float64).head(best).sum() / best
    return windows.group_by(_GROUP).agg(
        pl.col("score").mean(),
        pl.col("score").max().alias("score_max"),
        pl.col("layer").min(),
        pl.col("model").first(),
        pl.when(pl.col("score").count() > 0).then(song_score).alias("song_score"),
        (pl.col("best_share").first().is_null() | (song_score >= pl.col("bound").head(best).mean())).alias(
            "in_source"
        ),
    )


def _present(windows: pl.LazyFrame, in_source: pl.LazyFrame) -> pl.LazyFrame:
    """The windows in which their instrument is present."""
    return windows.filter("audible", pl.col("score").is_null() | (pl.col("margin") >= 0)).join(
        in_source.filter("in_source").select(_GROUP), on=_GROUP, how="semi", nulls_equal=True
    )


def _by_model(present_from: PresentFrom, value: Callable[[PresenceRule], pl.Expr]) -> pl.Expr:
    """A value from the rule of each row's tagger."""
    found = value(present_from[None])
    for model, rule in present_from.items():
        if model is not None:
            found = pl.when(pl.col("model") == model).then(value(rule)).otherwise(found)
    return found


def _bound(rule: PresenceRule) -> pl.Expr:
    """The bound of each row's label."""
    if not rule.bounds:
        return pl.lit(rule.bound)
    return pl.col("label").replace_strict(dict(rule.bounds), default=rule.bound, return_dtype=pl.Float64)


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
