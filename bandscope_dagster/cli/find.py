"""``bandscope find``: the songs in which instruments are present, or absent."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import polars as pl
from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.terminal import one_line, print_raw
from bandscope_dagster.errors import BandscopeError, counted
from bandscope_dagster.pages.text import clock
from bandscope_dagster.songs.query import query
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.vocabulary import load_vocabulary, normalize

SUGGESTED: Final = 3
GROUPS: Final = {"strings": "bowed strings", "woodwinds": "woodwind", "mallets": "pitched percussion"}
"""Instruments that are a group of the vocabulary, each with its family: a violin is one of the strings."""
EVERYDAY: Final = {normalize("vocals"): "voice", normalize("keys"): "keyboards"}
"""Everyday names of families that are also the name of one instrument in tags."""
SYNTHESIZER: Final = "synthesizer"  # its kinds are "synth lead", "synth pad", "synth bass" …


class UnknownName(BandscopeError):
    """No instrument, or no source, has this name; the message suggests similar ones."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The conditions on a song."""

    present: Sequence[str] = ()  # instruments or families
    absent: Sequence[str] = ()
    source: str | None = None  # only there; None: in the mixture or any stem
    min_seconds: float = 0.0  # of each instrument that must be present
    longer_s: float | None = None
    shorter_s: float | None = None


def find(store: ObjectStore, console: Console, wanted: Wanted, *, as_json: bool) -> None:
    """Print the songs that have all that is ``wanted``, longest presence first.

    Raises:
        UnknownName: an instrument or the source is unknown.
    """
    songs = query(store, "SELECT song_id, title, filename, duration_s, status, instruments FROM song_catalog")
    songs = songs.filter(pl.col("status").is_in(["ok", "warning", "partial"]))
    tags = query(
        store,
        "SELECT song_id, source, instrument, family, seconds_present FROM instrument_catalog",
    )
    tagged, tags = tags, tags.filter(pl.col("seconds_present") > 0)
    sources = tags["source"].unique().to_list()
    if wanted.source is not None:
        if tags.height and wanted.source not in sources:
            raise UnknownName(
                f"no song has a source {wanted.source!r}; choose from {', '.join(sorted(sources))}"
            )
        tags = tags.filter(pl.col("source") == wanted.source)
    if wanted.absent:  # nothing is known of a song that was not tagged
        songs = songs.filter(pl.col("instruments").is_not_null())
        if wanted.source is not None:
            songs = songs.join(tagged.filter(source=wanted.source), on="song_id", how="semi")
    known = set(tags["instrument"]) | set(tags["family"].drop_nulls())
    found = songs.drop("instruments").with_columns(pl.lit(None, pl.Float32).alias("seconds"))
    for name in wanted.present:
        heard = _heard(tags, _canonical(name, known)).filter(pl.col("most") >= wanted.min_seconds)
        found = found.join(heard, on="song_id").with_columns(
            pl.min_horizontal("seconds", "most").alias("seconds")
        )
        found = found.drop("most")
    for name in wanted.absent:
        found = found.join(_heard(tags, _canonical(name, known)), on="song_id", how="anti")
    if wanted.longer_s is not None:
        found = found.filter(pl.col("duration_s") > wanted.longer_s)
    if wanted.shorter_s is not None:
        found = found.filter(pl.col("duration_s") < wanted.shorter_s)
    found = found.sort("seconds", "title", "song_id", descending=[True, False, False], nulls_last=True)
    rows: list[dict[str, Any]] = found.drop("status").to_dicts()
    if as_json:
        print_raw(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        heard = "" if row["seconds"] is None else f", heard for {clock(row['seconds'])}"
        name = one_line(row["title"] or row["filename"])
        line = f"{row['song_id']}  {name} ({clock(row['duration_s'])}{heard})"
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(counted(len(rows), "song"), highlight=False)


def _heard(tags: pl.DataFrame, name: str) -> pl.DataFrame:
    """Each song with it, and ``most``, its longest presence in one source, in seconds.

    ``name`` is an instrument, with its kinds ("acoustic guitar" is one of "guitar"), or a family.
    """
    family = load_vocabulary().match(name).family
    is_kind = pl.col("instrument").str.ends_with(f" {name}") & (pl.col("family") == pl.lit(family))
    if name == SYNTHESIZER:
        is_kind |= pl.col("instrument").str.starts_with("synth ")
    of_name = tags.filter((pl.col("instrument") == name) | (pl.col("family") == name) | is_kind)
    return of_name.group_by("song_id").agg(pl.col("seconds_present").max().alias("most"))


def _canonical(name: str, known: set[str]) -> str:
    """The name of an instrument or family in the tables, for a name, a synonym or a label of ``known``.

    The everyday name of a family is that family, not the instrument of the same name: "strings" includes the violin.
    """
    vocabulary = load_vocabulary()
    wanted = name.strip().casefold()
    families = {family.casefold(): family for family in vocabulary.families}
    labels = {label.casefold(): label for label in known}
    match = vocabulary.match(name)
    instruments = [each for several in vocabulary.families.values() for each in several]
    if family := GROUPS.get(match.instrument) or EVERYDAY.get(normalize(name)):
        return family
    if wanted in instruments or wanted in families or wanted in labels:
        return families.get(wanted) or labels.get(wanted, wanted)
    if match.mapped:
        return match.instrument
    near = get_close_matches(wanted, [*instruments, *families, *labels], SUGGESTED)
    similar = f"did you mean {' or '.join(near)}? " if near else ""
    raise UnknownName(
        f"no instrument is named {name!r}; {similar}`bandscope vocabulary` lists all instruments"
    )
