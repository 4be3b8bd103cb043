"""Writes docs/tables.md and docs/tables.lock.json from the tables' definitions: python scripts/write_docs.py"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

from bandscope_dagster.storage.tables.lineage import Lineage
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    CATALOG_TABLES,
    SONGS,
    TABLES,
    Column,
    Table,
    catalog_key,
)

SCRIPTS = Path(__file__).parent
DOCS = SCRIPTS.parent / "docs"
PAGE = DOCS / "tables.md"
LOCK = DOCS / "tables.lock.json"

Lock = dict[str, dict[str, dict[str, str]]]
"""Table → version → column → type, in the order of the columns."""

ENTRIES = {
    "song_id": "the song",
    "song_hash": "SHA-256 of the uploaded bytes; empty where they could not be read",
    "input_digest": "SHA-256 over all that the rows follow from: the upload, the model with its weights and "
    "parameters, and of `stem_instrument_tags` the stems. With `code_version` it decides whether a result is kept",
    "code_version": "version of the code that made the rows",
    "model": "the separator or the tagger; empty where there is none",
    "model_sha256": "SHA-256 of its weights; of several files, over their digests",
    "params": "parameters of the model and of the audio, as JSON",
    "run_id": "the run in Dagster",
    "created_at": "when that run made its plan for the song, UTC",
    "table_version": "version of the table's columns",
    "software": "JSON: the versions of Bandscope, of what decodes (`av` is PyAV with its own FFmpeg; `soxr` resamples) "
    "and of what computes",
    "quality": "of `stems`: JSON with `residual_db`, and for each stem what `stem_quality` in `song_catalog` has",
    "used": "of `stems`: JSON with the device, and with the batch and the segment (frames) that memory allowed",
    "tags": "of tag tables: JSON with counts of windows and labels, the best instruments, the device and the batch",
    "clipped_share": "of `songs`: share of the samples at or beyond full scale",
}


class Unlocked(Exception):
    """The definitions and the lock do not agree; the message says what to do."""


def updated_lock(lock: Lock, tables: Mapping[str, Table]) -> Lock:
    """The lock with the columns of the tables' present versions.

    Raises:
        Unlocked: columns have changed and the version has not, or they have not only been appended.
    """
    gone = set(lock) - set(tables)
    if gone:
        raise Unlocked(f"{sorted(gone)} are no tables any more: put them back, analysts were promised them")
    return {name: _with_version(lock.get(name, {}), table) for name, table in tables.items()}


def _with_version(versions: dict[str, dict[str, str]], table: Table) -> dict[str, dict[str, str]]:
    columns = {column.name: _type(column) for column in table.columns}
    last = max(map(int, versions), default=0)
    if table.version not in (last, last + 1):
        raise Unlocked(
            f"{table.name} has version {table.version}, and {last} is the last in {LOCK.name}: set it to {last + 1} "
            "if its columns have changed, and else back"
        )
    before = versions.get(str(last), {})
    if table.version == last and list(columns.items()) != list(before.items()):
        raise Unlocked(
            f"{table.name}: {_difference(before, columns)}, but its version is still {last}. Set the version to "
            f"{last + 1} in storage/tables/schemas.py and run `python scripts/write_docs.py`"
        )
    if list(columns.items())[: len(before)] != list(before.items()):
        raise Unlocked(
            f"{table.name}: {_difference(before, columns)}. Changes only append columns, so that files of "
            f"version {last} can still be read: put its columns back as they were, and append new ones"
        )
    return versions | {str(table.version): columns}


def _type(column: Column) -> str:
    return f"{column.type}{'' if column.nullable else ' not null'}"


def _difference(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    changes = [f"{name} is new" for name in after if name not in before]
    changes += [f"{name} is gone" for name in before if name not in after]
    changes += [
        f"{name} was {before[name]} and is {kind}"
        for name, kind in after.items()
        if before.get(name, kind) != kind
    ]
    return ", ".join(changes) or "the order of its columns has changed"


def lock_text(lock: Lock) -> str:
    """The lock as its file has it: a line per column, so that a change is seen in a review."""
    return json.dumps(lock, indent=1) + "\n"


def page_text(tables: Mapping[str, Table]) -> str:
    """``docs/tables.md``."""
    parts = {
        "overview": "\n".join(_overview(tables)),
        "entries": "\n".join(_entries()),
        "tables": "\n".join(line for table in tables.values() for line in _section(table)).rstrip(),
    }
    text = (SCRIPTS / "tables_template.md").read_text()
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", part)
    return text


def _overview(tables: Mapping[str, Table]) -> Iterator[str]:
    yield "| table | what it has | file | version |"
    yield "|---|---|---|---|"
    for table in tables.values():
        what = table.description.partition(". ")[0].removesuffix(".")
        yield f"| [`{table.name}`](#{table.name}) | {what} | `{_file(table)}` | {table.version} |"


def _entries() -> Iterator[str]:
    missing = {entry.name for entry in fields(Lineage)} - set(ENTRIES)
    if missing:
        raise Unlocked(
            f"say in ENTRIES of scripts/write_docs.py what the entries {sorted(missing)} of files mean"
        )
    yield "| entry | meaning |"
    yield "|---|---|"
    for name, meaning in ENTRIES.items():
        yield f"| `{name}` | {meaning} |"


def _section(table: Table) -> Iterator[str]:
    yield f"## {table.name}"
    yield ""
    yield table.description
    yield ""
    yield f"Files: `{_file(table)}`. Version {table.version}. {_made(table)}"
    yield ""
    yield f"Nulls: {table.nulls}"
    yield ""
    yield "| column | type | unit | meaning | example |"
    yield "|---|---|---|---|---|"
    for column in table.columns:
        kind, example = _cell(_type(column)), _cell(column.example_text)
        meaning = column.description.replace("|", "\\|")
        yield f"| `{column.name}` | `{kind}` | {column.unit} | {meaning} | `{example}` |"
    yield ""


def _file(table: Table) -> str:
    return catalog_key(table) if table in CATALOG_TABLES else f"{table.name}/<song_id>.parquet"


def _made(table: Table) -> str:
    if table in CATALOG_TABLES:
        return "Made from the per-song tables, after runs have ended."
    if table in ANALYSIS_TABLES:
        return "Made by the step `analyze`."
    return (
        "Made by the step `songs`."
        if table is SONGS
        else "Made by both steps, from a failure until it is mended."
    )


def _cell(code: str) -> str:
    return code.replace("|", "\\|")


def main() -> None:
    """Write both files, or say why not."""
    before: Lock = json.loads(LOCK.read_text()) if LOCK.exists() else {}
    try:
        lock, page = updated_lock(before, TABLES), page_text(TABLES)
    except Unlocked as error:
        sys.exit(f"write_docs: {error}")
    DOCS.mkdir(exist_ok=True)
    LOCK.write_text(lock_text(lock))
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
