"""The checks of a song for its page."""

from collections.abc import Iterator
from typing import Final

from bandscope_dagster.pages.text import decibels, visible
from bandscope_dagster.separation.quality import FLOOR_DB, RESIDUAL_LIMIT_DB
from bandscope_dagster.songs.checks import (
    Check,
    blocks_are_whole,
    song_is_undamaged,
    song_is_usable,
    stems_sum_to_mixture,
    tags_are_complete,
)
from bandscope_dagster.songs.facts import SongFacts
from bandscope_dagster.storage.tables.schemas import TAG_TABLES

MARKS: Final = {"passed": "✓", "warned": "!", "failed": "✕"}


def residual(level: float) -> str:
    """The level of a residual in dB, or "none" if the stems add up to exactly the mixture."""
    return "none (exact)" if level <= FLOOR_DB else decibels(level, "dB")


def checks_view(facts: SongFacts) -> Iterator[dict[str, str]]:
    """Each check with its name, its outcome ("passed", "warned" or "failed") and a detail."""
    usable = song_is_usable(facts.song["error"])
    yield _line(usable, "The upload is usable", "complete audio within the limits")
    if facts.song["error"] is None and facts.song["bad_packets"] is not None:
        yield _line(
            song_is_undamaged(facts.song["warning"]), "The audio is undamaged", "all the audio that there is"
        )
    for problem in facts.evidence.damaged:
        yield _line(blocks_are_whole([problem.message]), f"The file of {problem.table} can be read", "")
    if facts.quality is not None:
        limit = decibels(RESIDUAL_LIMIT_DB, "dB")
        detail = f"residual: {residual(facts.quality.residual_db)}; the limit is {limit}"
        yield _line(stems_sum_to_mixture(facts.quality), "The stems add up to the mixture", detail)
    for table in TAG_TABLES:
        tags = facts.tag_counts.get(table.name)
        if tags is not None and tags.windows:
            source = "the mixture" if table is TAG_TABLES[0] else "the stems"
            detail = f"{tags.windows} windows with rows (silent windows have none), {tags.labels} tags"
            check = tags_are_complete(tags.windows, tags.lost, tags.labels, tags.unmapped)
            yield _line(check, f"The tags of {source} are complete", detail)


def _line(check: Check, name: str, detail: str) -> dict[str, str]:
    return {
        "outcome": check.outcome.value,
        "name": name,
        "detail": visible(check.description) if check.description else detail,
    }
