"""The instruments of a song over time, for its page: a part per source, a row per instrument."""

from typing import Any, Final

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.pages.text import span, visible
from bandscope_dagster.pictures.timeline import LEVELS, MOST_INSTRUMENTS
from bandscope_dagster.songs.facts import Instrument, Interval, SongFacts

UNMAPPED: Final = "unmapped"  # the family of an instrument that is not in the vocabulary
SHORTEST: Final = 0.3  # percent of the plot: a bar that people can see and click


def timeline_view(facts: SongFacts) -> dict[str, Any]:
    """One part per source, with a row for each of its instruments, at most ``MOST_INSTRUMENTS``."""
    present = [instrument for instrument in facts.instruments if instrument.source in facts.sources]
    scores = [i.score for instrument in present for i in instrument.intervals if i.score is not None]
    bounds = (min(scores), max(scores)) if scores else None
    parts: list[dict[str, Any]] = []
    for source in facts.sources:
        own = [instrument for instrument in present if instrument.source == source]
        shown = own[:MOST_INSTRUMENTS]
        tagged = facts.tag_counts.get("instrument_tags" if source == MIXTURE else "stem_instrument_tags")
        if tagged is None or (not own and source != MIXTURE):
            continue
        more = f"{len(shown)} of {len(own)} instruments" if len(own) > len(shown) else ""
        parts.append(
            {
                "source": visible(source),
                "heading": f"Heard in {'the mixture' if source == MIXTURE else visible(source)}",
                "more": more if own else "no instrument is present",
                "rows": [_row(instrument, bounds, facts.seconds) for instrument in shown],
            }
        )
    return {
        "parts": parts,
        "families": [
            {"name": family, "css": _css_class(family)}
            for family in sorted({instrument.family or UNMAPPED for instrument in present})
        ],
        "scores": [f"{score:.2f}" for score in bounds] if bounds else None,
    }


def _row(instrument: Instrument, scores: tuple[float, float] | None, seconds: float) -> dict[str, Any]:
    family = instrument.family or UNMAPPED
    return {
        "name": visible(instrument.name),
        "family": family,
        "family_class": _css_class(family),
        "layer": instrument.layer and instrument.layer.replace("_", " "),
        "bars": [_bar(instrument, interval, scores, seconds) for interval in instrument.intervals],
    }


def _bar(
    instrument: Instrument, interval: Interval, scores: tuple[float, float] | None, seconds: float
) -> dict[str, Any]:
    label = [
        visible(instrument.name).replace(",", " "),
        instrument.family or UNMAPPED,
        visible(instrument.source),
    ]
    if instrument.layer:
        label.append(instrument.layer.replace("_", " "))
    if interval.score is not None:
        label.append(f"score {interval.score:.2f}")
    label.append(f"{span(interval.start_s, interval.end_s)} ({interval.end_s - interval.start_s:.1f} s)")
    start = 100 * interval.start_s / seconds
    return {
        "level": _level(interval.score, scores),
        "x": round(min(start, 100 - SHORTEST), 3),
        "width": round(max(SHORTEST, min(100 * interval.end_s / seconds, 100.0) - start), 3),
        "label": ", ".join(label),
        "start": interval.start_s,
        "end": interval.end_s,
        "score": None if interval.score is None else round(interval.score, 4),
    }


def _level(score: float | None, scores: tuple[float, float] | None) -> int:
    """The opacity of a bar, from 1 to LEVELS."""
    if score is None or scores is None or scores[0] == scores[1]:
        return LEVELS
    return min(LEVELS, 1 + int((score - scores[0]) / (scores[1] - scores[0]) * LEVELS))


def _css_class(family: str) -> str:
    return family.replace(" ", "-")
