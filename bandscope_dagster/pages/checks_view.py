"""The checks of a song as its page tells them, from what the tables hold."""

from collections.abc import Iterator
from typing import Final

from bandscope_dagster.pages.text import decibels, visible
from bandscope_dagster.separation.quality import FLOOR_DB, RESIDUAL_LIMIT_DB
from bandscope_dagster.songs.facts import TAG_TABLES, SongFacts
from bandscope_dagster.tagging.summary import UNMAPPED_LIMIT

MARKS: Final = {"passed": "✓", "warned": "!", "wrong": "✕"}


def residual(level: float) -> str:
    """How much of the mixture the stems lack, and "none" where they add up to it in every bit."""
    return "none: exact" if level <= FLOOR_DB else decibels(level, "dB")


def checks_view(facts: SongFacts) -> Iterator[dict[str, str]]:
    """Each check as its name, its outcome ("passed", "warned" or "wrong") and what was found."""
    error = facts.song["error"]
    if error is None:
        told = "a whole piece of audio within the limits"
        yield {"outcome": "passed", "name": "The upload is usable", "told": told}
    else:
        outcome = "wrong" if facts.status == "failed" else "warned"
        yield {"outcome": outcome, "name": "The upload is usable", "told": visible(error)}
    if facts.quality is not None:
        level = facts.quality.residual_db
        yield {
            "outcome": "passed" if level < RESIDUAL_LIMIT_DB else "wrong",
            "name": "The stems add up to the mixture",
            "told": f"residual: {residual(level)}; less than {decibels(RESIDUAL_LIMIT_DB, 'dB')} is expected",
        }
    for table in TAG_TABLES:
        tags = facts.tagging.get(table.name)
        if tags is None or not tags.windows:
            continue
        whose = "the mixture" if table is TAG_TABLES[0] else "the stems"
        yield {
            "outcome": "passed" if not tags.lost else "warned",
            "name": f"Every window of {whose} has tags",
            "told": f"{tags.windows - tags.lost} of {tags.windows} windows with rows; silent ones have none",
        }
        share = tags.unmapped / tags.labels if tags.labels else 0.0
        yield {
            "outcome": "passed" if share < UNMAPPED_LIMIT else "warned",
            "name": f"The vocabulary knows the labels of {whose}",
            "told": f"{tags.labels - tags.unmapped} of {tags.labels} tags are known",
        }
