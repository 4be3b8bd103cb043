"""A summary of one tag table of a song, for metadata and checks."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.window_flow import WindowFlow
from bandscope_dagster.tagging.window_queue import WindowQueue

TOP: Final = 5  # instruments in a summary
SUMMARIZED: Final = ("source", "instrument", "mapped", "score", "error")  # columns that ``summarize`` reads

UNMAPPED_LIMIT: Final = 0.1
"""The share of unmapped labels from which searches by instrument miss too much: extend the vocabulary then."""


@dataclass(frozen=True, slots=True)
class TagSummary:
    """A summary of the tags of a song's mixture, or of all its stems. Stored as JSON: keep the names of the fields."""

    windows: int  # tagged; silent ones are not
    lost: int  # windows among these with an error instead of tags
    labels: int  # rows with an instrument
    unmapped: int  # rows among these whose label is not in the vocabulary
    top_instruments: Mapping[str, float]  # instrument → mean score in a source; the highest ``TOP``
    device: str  # a device name of torch, or "server"
    batch: int  # windows, most in one call of the tagger or at once; below the option if memory ran out

    @property
    def unmapped_share(self) -> float:
        """The share of rows whose label is not in the vocabulary, in [0, 1], among rows with an instrument."""
        return self.unmapped / self.labels if self.labels else 0.0

    def to_json(self) -> str:
        """The summary as a JSON object, with the names of the fields."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of ``to_json``; ignores fields that a later version has added."""
        values = json.loads(text)
        return cls(**{entry.name: values[entry.name] for entry in fields(cls)})


def summarize(
    sources: Iterable[SourceTags], rows: Iterable[Mapping[str, Any]], queue: WindowQueue | WindowFlow
) -> TagSummary:
    """The summary of the ``rows`` of these sources, which ``queue`` tagged."""
    windows = {source.source: len(source.tagged) for source in sources}
    means: defaultdict[tuple[str, str], float] = defaultdict(float)  # (source, instrument) → mean score
    lost = labels = unmapped = 0
    for row in rows:
        lost += row["error"] is not None
        if row["instrument"] is not None:
            labels += 1
            unmapped += not row["mapped"]
            score = 1.0 if row["score"] is None else row["score"]
            means[row["source"], row["instrument"]] += score / windows[row["source"]]
    best: dict[str, float] = {}
    for (_, instrument), mean in means.items():
        best[instrument] = max(mean, best.get(instrument, 0.0))
    highest = sorted(best.items(), key=lambda pair: -pair[1])[:TOP]
    return TagSummary(
        windows=sum(windows.values()),
        lost=lost,
        labels=labels,
        unmapped=unmapped,
        top_instruments={instrument: round(mean, 3) for instrument, mean in highest},
        device=queue.tagger.device,
        batch=queue.batch,
    )
