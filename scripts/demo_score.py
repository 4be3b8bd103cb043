"""Print what plays in the demo's songs beside what Bandscope heard in them, with a score of both.

    python scripts/demo_score.py demo/store

``demo_audio/parts.toml`` says what plays. What was heard comes from ``song_catalog``, so only instruments that are
present by the tagger's rule count.
"""

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
from rich.console import Console
from rich.table import Table

PARTS: Final = Path(__file__).with_name("demo_audio") / "parts.toml"


@dataclass(frozen=True, slots=True)
class Judged:
    """One song: what plays, and what was heard, both as names of the vocabulary."""

    title: str
    plays: tuple[str, ...]
    heard: Mapping[str, Sequence[str]]  # instrument → sources in which it is present

    @property
    def found(self) -> list[str]:
        """The parts that were heard."""
        return [name for name in self.plays if name in self.heard]

    @property
    def false(self) -> list[str]:
        """Instruments that were heard and do not play."""
        return [name for name in self.heard if name not in self.plays]


def judge(songs: Sequence[Mapping[str, Any]], catalog: pl.DataFrame) -> list[Judged]:
    """Each song of ``parts.toml`` beside its row in ``song_catalog``; a song without a row has nothing heard."""
    rows = {row["filename"]: row["instruments"] or [] for row in catalog.iter_rows(named=True)}
    return [
        Judged(
            song["title"],
            tuple(song["parts"]),
            {heard["instrument"]: heard["sources"] for heard in rows.get(song["file"], [])},
        )
        for song in songs
    ]


def score(judged: Sequence[Judged]) -> str:
    """Both counts, in a sentence."""
    plays, found, false = (
        sum(len(getattr(song, name)) for song in judged) for name in ("plays", "found", "false")
    )
    wrong = "1 instrument was heard that does" if false == 1 else f"{false} instruments were heard that do"
    return f"{found} of {plays} parts were found; {wrong} not play."


def as_table(judged: Sequence[Judged]) -> Table:
    """The songs for a terminal: a line for each part, and for each instrument that does not play."""
    table = Table("song", "plays", "heard in", box=None, padding=(0, 3, 0, 0))
    for song in judged:
        lines = [
            (name, ", ".join(song.heard[name]) if name in song.heard else "not heard") for name in song.plays
        ]
        lines += [
            ("—", f"{name}, which does not play ({', '.join(song.heard[name])})") for name in song.false
        ]
        for number, (plays, heard) in enumerate(lines):
            table.add_row("" if number else song.title, plays, heard)
    return table


def main() -> None:
    """Print table and score for a store."""
    parser = argparse.ArgumentParser(description="Print what plays in the demo's songs, and what was heard.")
    parser.add_argument("store", type=Path, help="folder of the store")
    store = parser.parse_args().store
    catalog = pl.read_parquet(
        store / "song_catalog" / "song_catalog.parquet", columns=["filename", "instruments"]
    )
    judged = judge(tomllib.loads(PARTS.read_text())["songs"], catalog)
    Console(width=None if os.isatty(1) else 100).print(as_table(judged))
    print(f"\n{score(judged)}")


if __name__ == "__main__":
    main()
