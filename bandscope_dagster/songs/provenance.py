"""Where every table of a song comes from, by its files alone, and which of them no longer fit together."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from bandscope_dagster.errors import has_failed
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.pipeline.plan import CODE_VERSIONS, digest
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
from bandscope_dagster.storage.tables.song_tables import read_table

logger = logging.getLogger(__name__)

COMPUTED_ON: Final = ("device", "batch", "segment")  # of the notes; segment in frames at 44.1 kHz


@dataclass(frozen=True, slots=True)
class TableOrigin:
    """What the song's file in one table says of itself, and how it fits the others."""

    table: str
    lineage: Lineage | None = None  # None: there is no file, or it cannot be read
    maker: Maker | None = None
    computed_on: Mapping[str, Any] | None = None  # device, batch, and of stems segment; None where not known
    remarks: tuple[str, ...] = ()  # what does not fit, in words


@dataclass(frozen=True, slots=True)
class SongOrigin:
    """Where all that is known of a song comes from."""

    song_id: str
    song: Mapping[str, Any] | None  # the row of ``songs``: the upload, and what was decoded; None without one
    tables: tuple[TableOrigin, ...]  # the per-song tables in the order of the pipeline, then failures if any

    @property
    def has_files(self) -> bool:
        """Whether the store holds anything of the song."""
        return any(origin.lineage is not None or origin.remarks for origin in self.tables)


def trace(store: ObjectStore, song_id: str) -> SongOrigin:
    """Read the footers of the song's files, and its row in ``songs``. A file that is damaged is remarked on."""
    origins = {table.name: _read(store, table, song_id) for table in (*SONG_TABLES, SONG_FAILURES)}
    songs, failures = (
        _rows(store, table, origins[table.name].lineage, song_id) for table in (SONGS, SONG_FAILURES)
    )
    song = songs[0] if songs else None
    lineages = {name: origin.lineage for name, origin in origins.items() if origin.lineage is not None}
    found = remarks(song, {table.name: lineages.get(table.name) for table in SONG_TABLES})
    failed: dict[str, list[str]] = {}
    for row in failures:
        cause = f"{row['reason']}: {row['message']}"
        failed.setdefault(row["table"], []).append(f"the last run could not make it: {cause}")
    shown = [*SONG_TABLES, *([SONG_FAILURES] if SONG_FAILURES.name in lineages else [])]
    tables = tuple(
        _with_remarks(origins[table.name], [*failed.get(table.name, ()), *found.get(table.name, ())])
        for table in shown
    )
    return SongOrigin(song_id, song, tables)


def remarks(
    song: Mapping[str, Any] | None, lineages: Mapping[str, Lineage | None]
) -> dict[str, tuple[str, ...]]:
    """What does not fit of the song's files, per table, in words.

    ``song`` is its row in ``songs``; ``lineages`` are those of the per-song tables. Input digests are made again
    from what the files say and compared, by the rules of ``SongPlanner``.
    """
    known = {table: lineage for table, lineage in lineages.items() if lineage is not None}
    return {
        table: found
        for table, lineage in known.items()
        if (found := tuple(_remarks(table, lineage, song, known)))
    }


def _remarks(
    table: str, lineage: Lineage, song: Mapping[str, Any] | None, lineages: Mapping[str, Lineage]
) -> Iterator[str]:
    if lineage.code_version != CODE_VERSIONS[table]:
        yield f"made by version {lineage.code_version} of its code, of which this is {CODE_VERSIONS[table]}"
    if song is None:
        yield "songs has nothing of the song, so that nobody knows whether the upload is still the same"
        return
    error: str | None = song["error"]
    is_analysis = table != SONGS.name
    if is_analysis and error is not None:
        if has_failed(error) or lineage.input_digest != digest(lineage.song_id, error):
            yield f"made before songs found that the upload cannot be used ({error})"
        return
    if is_analysis and _is_rejection(lineage):
        yield "tells of an error of the upload that songs no longer has"
        return
    if lineage.song_hash != (song["song_hash"] or ""):
        yield f"made from other bytes of the upload, of SHA-256 {lineage.song_hash or '(not read)'}"
        return
    yield from _of_inputs(table, lineage, lineages)


def _of_inputs(table: str, lineage: Lineage, lineages: Mapping[str, Lineage]) -> Iterator[str]:
    stems, tags = lineages.get(STEMS.name), lineages.get(INSTRUMENT_TAGS.name)
    if table == STEM_INSTRUMENT_TAGS.name:
        if stems is None:
            yield "the stems that it was made from are no longer stored"
        elif lineage.input_digest != _input_digest(table, lineage, stems):
            yield f"made from other stems than those that are stored ({_named(stems)})"
        if tags is not None and _model(tags) != _model(lineage):
            yield f"made by another tagger, weights or parameters than instrument_tags ({_named(tags)})"
    elif lineage.input_digest != _input_digest(table, lineage, stems):
        yield "its input digest is not that of its upload, model and parameters: another version made it"


def _input_digest(table: str, lineage: Lineage, stems: Lineage | None) -> str:
    """The digest over the inputs that the lineage names; see ``SongPlanner``, which makes it before the run."""
    model = _model(lineage)
    if table == SONGS.name:
        return digest(lineage.song_id, model.params)
    if table == INSTRUMENT_TAGS.name:
        return digest(lineage.song_hash, asdict(model))
    if table == STEM_INSTRUMENT_TAGS.name:
        return digest(stems.input_digest if stems else "", asdict(model))
    audio = {name: value for name, value in model.params.items() if name == "flac_bits"}
    if table != STEMS.name:
        return digest(lineage.song_hash, audio)
    own = {name: value for name, value in model.params.items() if name not in audio}
    return digest(lineage.song_hash, audio, asdict(ModelIdentity(model.name, model.sha256, own)))


def _is_rejection(lineage: Lineage) -> bool:
    """Whether the file only passes an error of ``songs`` on: whatever is computed has parameters."""
    return not lineage.model and not json.loads(lineage.params or "{}")


def _model(lineage: Lineage) -> ModelIdentity:
    return ModelIdentity(lineage.model, lineage.model_sha256, json.loads(lineage.params or "{}"))


def _named(lineage: Lineage) -> str:
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
    version, current = maker.table_version, TABLES[table.name].version
    aged = version is not None and version < current
    older = (f"has the columns of version {version}, of which there are {current}",) if aged else ()
    return TableOrigin(table.name, lineage, maker, computed_on or None, older)


def _rows(store: ObjectStore, table: Table, lineage: Lineage | None, song_id: str) -> list[dict[str, Any]]:
    """The rows of the song; none where it has no file, or of its file only the footer can be read."""
    try:
        rows = read_table(store, table, song_id) if lineage is not None else None
    except ValueError as error:
        logger.warning("%s", error)
        return []
    return [] if rows is None else rows.to_pylist()


def _with_remarks(origin: TableOrigin, more: list[str]) -> TableOrigin:
    return TableOrigin(
        origin.table, origin.lineage, origin.maker, origin.computed_on, (*origin.remarks, *more)
    )
