"""The lineage of a song's tables for its page: the upload, then each table with the entries of its footer."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bandscope_dagster.pages.text import moment, visible
from bandscope_dagster.songs.facts import SongFacts
from bandscope_dagster.storage.tables.lineage import Lineage
from bandscope_dagster.storage.tables.schemas import SONG_TABLES


def lineage_view(facts: SongFacts) -> Iterator[dict[str, Any]]:
    """The upload, then every table with the entries of its footer."""
    song = facts.song
    upload = {"key": song["upload_key"], "SHA-256": song["song_hash"], "song": song["song_id"]}
    if song["uploaded_at"] is not None:
        upload["uploaded"] = moment(song["uploaded_at"])
    brief = visible(song["upload_key"] or "gone")
    yield {"name": "upload", "brief": brief, "lacking": False, "entries": _entries(upload)}
    for table in SONG_TABLES:
        lineage = facts.lineages.get(table.name)
        entries = [] if lineage is None else _entries(lineage_facts(lineage))
        if table.name == "stems" and facts.used:
            entries += _entries({"computed on": in_words(facts.used)})
        known = [] if lineage is None else [lineage.model, moment(lineage.created_at)]
        brief = " · ".join(visible(part) for part in known if part) or "not computed"
        yield {"name": table.name, "brief": brief, "lacking": lineage is None, "entries": entries}


def lineage_facts(lineage: Lineage) -> dict[str, str]:
    """Name → value of a file's lineage, without the upload, which all tables share."""
    return {
        "model": lineage.model,
        "weights": lineage.model_sha256,
        "parameters": in_words(json.loads(lineage.params or "{}")),
        "input digest": lineage.input_digest,
        "code version": lineage.code_version,
        "run": lineage.run_id,
        "made": moment(lineage.created_at),
    }


def in_words(values: Mapping[str, Any]) -> str:
    """Names and values as text: ``overlap 0.25, sources vocals drums``."""

    def text(value: Any) -> str:
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return ", ".join(f"{name} {text(value)}" for name, value in values.items())


def _entries(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, visible(str(value))) for name, value in values.items() if value not in (None, "")]
