"""The checks of a song for its page."""

from collections.abc import Iterator
from typing import Final

from bandscope_dagster.pages.text import decibels, visible
from bandscope_dagster.separation.quality import FLOOR_DB, RESIDUAL_LIMIT_DB
from bandscope_dagster.songs.checks import (
    Check,
    Outcome,
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
    """Each check with its outcome ("passed", "warned" or "failed"), a sentence that is true then, and a detail."""
    usable = song_is_usable(facts.song["error"])
    unusable = (
        "The upload could not be processed"
        if usable.outcome is Outcome.FAILED
        else "The upload cannot be used"
    )
    yield _line(usable, "The upload is usable", unusable, "complete audio within the limits")
    if facts.song["error"] is None and facts.song["bad_packets"] is not None:
        undamaged = song_is_undamaged(facts.song["warning"])
        damaged = "The audio may be damaged or incomplete"
        yield _line(undamaged, "The audio is undamaged", damaged, "all the audio that there is")
    for problem in facts.evidence.damaged:
        file = f"The file of {problem.table}"
        yield _line(blocks_are_whole([problem.message]), f"{file} can be read", f"{file} is damaged", "")
    if facts.quality is not None and facts.quality.residual_db is not None:
        limit = decibels(RESIDUAL_LIMIT_DB, "dB")
        detail = f"residual: {residual(facts.quality.residual_db)}; the limit is {limit}"
        sums = stems_sum_to_mixture(facts.quality)
        unlike = "The stems do not add up to the mixture"
        yield _line(sums, "The stems add up to the mixture", unlike, detail)
    for table in TAG_TABLES:
        tags = facts.tag_counts.get(table.name)
        if tags is not None and tags.windows:
            name = f"The tags of {'the mixture' if table is TAG_TABLES[0] else 'the stems'}"
            detail = f"{tags.windows} windows with rows (silent windows have none), {tags.labels} tags"
            check = tags_are_complete(tags.windows, tags.lost, tags.labels, tags.unmapped)
            lacking = f"{name} are incomplete" if tags.lost else f"{name} have unknown labels"
            yield _line(check, f"{name} are complete", lacking, detail)


def _line(check: Check, passed: str, otherwise: str, detail: str) -> dict[str, str]:
    return {
        "outcome": check.outcome.value,
        "name": passed if check.passed else otherwise,
        "detail": visible(check.description) if check.description else detail,
    }
