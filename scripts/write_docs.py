"""Write the pages that are made from code: docs/tables.md, its lock and docs/settings.md.

python scripts/write_docs.py
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import settings_page

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
SETTINGS_PAGE = DOCS / "settings.md"

Lock = dict[str, dict[str, dict[str, str]]]
"""Table → version → column → type, in column order. Descriptions are not part of it: they may change freely."""

ENTRIES = {
    "song_id": "the song",
    "song_hash": "SHA-256 of the uploaded bytes; empty where they could not be read",
    "input_digest": "SHA-256 over every input: the upload, the model with its weights and parameters, and the stems "
    "for `stem_instrument_tags`. A stored result is kept while this and `code_version` are the same",
    "code_version": "version of the code that made the rows",
    "model": "the separator or the tagger; empty where no model is used",
    "model_sha256": "SHA-256 of its weights; for several files, SHA-256 over their digests",
    "params": "parameters of the model and of the audio, as JSON",
    "run_id": "the run in Dagster",
    "created_at": "time at which that run planned the song, UTC",
    "table_version": "version of the table's columns",
    "software": "JSON: versions of Bandscope, of the decoders (`av` is PyAV, which contains FFmpeg; `soxr` resamples) "
    "and of the libraries that compute",
    "quality": "only in `stems`: JSON with `residual_db`, and for each stem the fields of `stem_quality` in "
    "`song_catalog`",
    "used": "only in `stems`: JSON with the device, and the batch and segment (frames) that fitted into memory",
    "tags": "only in tag tables: JSON with counts of windows and labels, the top instruments, the device and the batch",
    "clipped_share": "only in `songs`: share of the samples at or beyond full scale",
}
"""Entry of a file's metadata → its meaning."""


class Unlocked(Exception):
    """The definitions and the lock disagree; the message names the fix."""


def updated_lock(lock: Lock, tables: Mapping[str, Table]) -> Lock:
    """The lock with the columns of each table's current version.

    Raises:
        Unlocked: columns changed without a new version, or in another way than by appending.
    """
    gone = set(lock) - set(tables)
    if gone:
        raise Unlocked(f"{sorted(gone)} were removed: put them back, because analysts rely on them")
    return {name: _with_version(lock.get(name, {}), table) for name, table in tables.items()}


def _with_version(versions: dict[str, dict[str, str]], table: Table) -> dict[str, dict[str, str]]:
    columns = {column.name: _type(column) for column in table.columns}
    last = max(map(int, versions), default=0)
    if table.version not in (last, last + 1):
        raise Unlocked(
            f"{table.name} has version {table.version}, but the last one in {LOCK.name} is {last}: set it to "
            f"{last + 1} if its columns changed, and to {last} otherwise"
        )
    before = versions.get(str(last), {})
    if table.version == last and list(columns.items()) != list(before.items()):
        raise Unlocked(
            f"{table.name}: {_difference(before, columns)}, but its version is still {last}. Set the version to "
            f"{last + 1} in storage/tables/schemas.py and run `python scripts/write_docs.py`"
        )
    if list(columns.items())[: len(before)] != list(before.items()):
        raise Unlocked(
            f"{table.name}: {_difference(before, columns)}. A change may only append columns, so that files of "
            f"version {last} stay readable: restore the columns, and append the new ones"
        )
    return versions | {str(table.version): columns}


def _type(column: Column) -> str:
    return f"{column.type}{'' if column.nullable else ' not null'}"


def _difference(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    changes = [f"{name} is new" for name in after if name not in before]
    changes += [f"{name} was removed" for name in before if name not in after]
    changes += [
        f"{name} changed from {before[name]} to {kind}"
        for name, kind in after.items()
        if before.get(name, kind) != kind
    ]
    return ", ".join(changes) or "the columns changed their order"


def lock_text(lock: Lock) -> str:
    """The lock as text: one line per column, so that a review shows each change."""
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
    yield "| table | rows | file | version |"
    yield "|---|---|---|---|"
    for table in tables.values():
        what = table.description.partition(". ")[0].removesuffix(".")
        yield f"| [`{table.name}`](#{table.name}) | {what} | `{_file(table)}` | {table.version} |"


def _entries() -> Iterator[str]:
    missing = {entry.name for entry in fields(Lineage)} - set(ENTRIES)
    if missing:
        raise Unlocked(f"add the meaning of {sorted(missing)} to ENTRIES in scripts/write_docs.py")
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
        return "Made from the per-song tables after each run."
    if table in ANALYSIS_TABLES:
        return "Made by the step `analyze`."
    return (
        "Made by the step `songs`."
        if table is SONGS
        else "Made by both steps; removed once the song succeeds."
    )


def _cell(code: str) -> str:
    return code.replace("|", "\\|")


def main() -> None:
    """Write all pages, or exit with the reason why they cannot be written."""
    before: Lock = json.loads(LOCK.read_text()) if LOCK.exists() else {}
    try:
        lock, page, settings = updated_lock(before, TABLES), page_text(TABLES), settings_page.page_text()
    except (Unlocked, settings_page.Ungrouped) as error:
        sys.exit(f"write_docs: {error}")
    LOCK.write_text(lock_text(lock))
    PAGE.write_text(page)
    SETTINGS_PAGE.write_text(settings)


if __name__ == "__main__":
    main()
