"""The origin of every stored table of a song, read from its files alone, and the files that do not fit together."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bandscope_dagster import input_digests
from bandscope_dagster.errors import is_failure
from bandscope_dagster.songs.status import SOURCES, Evidence, read_evidence
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import (
    TAGS_NOTE,
    USED_NOTE,
    Lineage,
    Maker,
    lineage_and_notes,
    read_footer,
)
from bandscope_dagster.storage.tables.schemas import (
    INSTRUMENT_TAGS,
    SONG_FAILURES,
    SONG_TABLES,
    SONGS,
    STEM_INSTRUMENT_TAGS,
    STEMS,
    TABLES,
    Table,
)
from bandscope_dagster.storage.tables.song_files import files_of
from bandscope_dagster.storage.tables.song_tables import read_table

logger = logging.getLogger(__name__)

COMPUTED_ON: Final = ("device", "batch", "segment")  # names in the notes; segment in frames at 44.1 kHz


@dataclass(frozen=True, slots=True)
class TableOrigin:
    """The origin of the song's file in one table, and remarks if it does not fit the other files."""

    table: str
    lineage: Lineage | None = None  # None if there is no file, or it cannot be read
    maker: Maker | None = None
    computed_on: Mapping[str, Any] | None = None  # device, batch, and segment for stems; None if unknown
    remarks: tuple[str, ...] = ()  # the reasons why it does not fit
    outdated: tuple[str, ...] = ()  # of these, the ones because of its code version or its inputs


@dataclass(frozen=True, slots=True)
class SongOrigin:
    """The origin of all files of a song."""

    song_id: str
    song: Mapping[str, Any] | None  # the row of ``songs``: upload and audio format; None if there is none
    evidence: Evidence  # decides the status
    tables: tuple[TableOrigin, ...]  # the per-song tables in the order of the pipeline, then failures

    @property
    def has_files(self) -> bool:
        """True if the store has any file of the song."""
        return any(origin.lineage is not None or origin.remarks for origin in self.tables)


def trace(store: ObjectStore, song_id: str) -> SongOrigin:
    """Read the footers of the song's files and its row in ``songs``. A damaged file gets a remark."""
    origins = {table.name: _read(store, table, song_id) for table in SOURCES}
    lineages = {name: origin.lineage for name, origin in origins.items() if origin.lineage is not None}
    evidence = read_evidence(files_of(store, song_id, SOURCES))[song_id]
    song = _song(store, song_id) if SONGS.name in lineages else None
    tables: list[TableOrigin] = []
    for table in (*SONG_TABLES, *([SONG_FAILURES] if SONG_FAILURES.name in lineages else [])):
        origin = origins[table.name]
        remarks = [*origin.remarks]
        remarks += [
            f"the last run could not compute it: {each.error}"
            for each in evidence.failures
            if each.table == table.name
        ]
        outdated: list[str] = []
        if origin.lineage is not None and table is not SONG_FAILURES:
            outdated += _remarks(table.name, origin.lineage, song, lineages)
        tables.append(replace(origin, remarks=(*remarks, *outdated), outdated=tuple(outdated)))
    return SongOrigin(song_id, song, evidence, tuple(tables))


def _remarks(
    table: str, lineage: Lineage, song: Mapping[str, Any] | None, lineages: Mapping[str, Lineage]
) -> Iterator[str]:
    """The reasons why the song's file in a table does not fit its other files.

    ``song`` is its row in ``songs``. Input digests are computed again from what the files record, and compared.
    """
    current = input_digests.CODE_VERSIONS[table]
    if lineage.code_version != current:
        yield f"computed by code version {lineage.code_version}; the current version is {current}"
    if song is None:
        yield "songs has no row for this song, so the upload cannot be compared"
        return
    error: str | None = song["error"]
    is_analysis = table != SONGS.name
    if is_analysis and error is not None:
        if is_failure(error) or lineage.input_digest != input_digests.of_rejection(lineage.song_id, error):
            yield f"computed before songs recorded an error of the upload ({error})"
        return
    if is_analysis and _is_rejection(lineage):
        yield "contains an error of the upload that songs no longer has"
        return
    if lineage.song_hash != (song["song_hash"] or ""):
        yield f"computed from an upload with other bytes (SHA-256 {lineage.song_hash or 'not read'})"
        return
    yield from _input_remarks(table, lineage, lineages)


def _input_remarks(table: str, lineage: Lineage, lineages: Mapping[str, Lineage]) -> Iterator[str]:
    stems, tags = lineages.get(STEMS.name), lineages.get(INSTRUMENT_TAGS.name)
    is_current = lineage.input_digest == input_digests.of_stored(table, lineage, stems)
    if table == STEM_INSTRUMENT_TAGS.name:
        if stems is None:
            yield "its stems are no longer stored"
        elif not is_current:
            yield f"computed from other stems than the stored ones ({_model_and_time(stems)})"
        if tags is not None and input_digests.tagger_of(tags) != input_digests.tagger_of(lineage):
            yield f"its tagger, weights or parameters differ from instrument_tags ({_model_and_time(tags)})"
    elif not is_current:
        yield "its input digest does not match its upload, model and parameters: another version computed it"


def _is_rejection(lineage: Lineage) -> bool:
    """True if the file only passes on an error of ``songs``. Every computed table has parameters."""
    return not lineage.model and not json.loads(lineage.params or "{}")


def _model_and_time(lineage: Lineage) -> str:
    return f"{lineage.model or 'without a model'}, {lineage.created_at:%Y-%m-%d %H:%M} UTC"


def _read(store: ObjectStore, table: Table, song_id: str) -> TableOrigin:
    try:
        footer = read_footer(store, table, song_id)
        if footer is None:
            return TableOrigin(table.name)
        lineage, notes = lineage_and_notes(footer, store, table, song_id)
    except ValueError as error:
        return TableOrigin(table.name, remarks=(str(error),))
    maker = Maker.of(footer)
    note: dict[str, Any] = json.loads(notes.get(USED_NOTE) or notes.get(TAGS_NOTE) or "{}")
    computed_on = {name: note[name] for name in COMPUTED_ON if name in note}
    version = maker.table_version
    current = TABLES[table.name].version
    is_older = version is not None and version < current
    older = (f"has the columns of version {version}; the current version is {current}",)
    return TableOrigin(table.name, lineage, maker, computed_on or None, older if is_older else ())


def _song(store: ObjectStore, song_id: str) -> Mapping[str, Any] | None:
    """The song's row; None if only the footer of its file can be read."""
    try:
        rows = read_table(store, SONGS, song_id)
    except ValueError as error:
        logger.warning("%s", error)
        return None
    return None if rows is None else rows.to_pylist()[0]
