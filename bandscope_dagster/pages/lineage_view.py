"""The lineage of a song's tables as its page tells it: from the upload to each table, by what their footers say."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from bandscope_dagster.pages.facts import SongFacts
from bandscope_dagster.pages.text import moment, visible
from bandscope_dagster.storage.lineage import Lineage
from bandscope_dagster.storage.schemas import SONG_TABLES


def lineage_view(facts: SongFacts) -> Iterator[dict[str, Any]]:
    """The upload, and then every table with what its footer says."""
    song = facts.song
    upload = {"key": song["upload_key"], "SHA-256": song["song_hash"], "song": song["song_id"]}
    if song["uploaded_at"] is not None:
        upload["uploaded"] = moment(song["uploaded_at"])
    brief = visible(song["upload_key"] or "gone")
    yield {"name": "upload", "brief": brief, "lacking": False, "entries": _entries(upload)}
    for table in SONG_TABLES:
        lineage = facts.lineages.get(table.name)
        entries = _entries(_footer(lineage)) if lineage is not None else []
        if table.name == "stems" and facts.used:
            entries += _entries({"computed on": _list(facts.used)})
        known = [] if lineage is None else [lineage.model, moment(lineage.created_at)]
        brief = " · ".join(visible(part) for part in known if part) or "not computed"
        yield {"name": table.name, "brief": brief, "lacking": lineage is None, "entries": entries}


def _footer(lineage: Lineage) -> dict[str, Any]:
    """All entries but those of the upload, which are the same in every table."""
    values: dict[str, Any] = {entry.name: getattr(lineage, entry.name) for entry in fields(lineage)}
    values["params"] = _list(json.loads(lineage.params or "{}"))
    values["created_at"] = moment(lineage.created_at)
    names = {"model_sha256": "weights", "params": "parameters", "run_id": "run", "created_at": "made"}
    return {
        names.get(name, name.replace("_", " ")): value
        for name, value in values.items()
        if name not in ("song_id", "song_hash")
    }


def _list(values: Mapping[str, Any]) -> str:
    told = {
        name: " ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _entries(values: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, visible(str(value))) for name, value in values.items() if value not in (None, "")]
