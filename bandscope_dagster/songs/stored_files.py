"""What a stored file of a song says of itself in its footer, and whether it keeps its table's promises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bandscope_dagster.audio.blocks import BLOCK_FRAMES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.lineage import Lineage, lineage_and_notes, read_footer
from bandscope_dagster.storage.tables.schemas import DECODED_WAVEFORMS, STEMS, Table

AUDIO_TABLES = (DECODED_WAVEFORMS, STEMS)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it was found in the store."""

    lineage: Lineage
    notes: Mapping[str, str]  # beside the lineage: what was measured when it was written
    frames: (
        int | None
    )  # in the blocks of an audio table, at 44.1 kHz; None of other tables and of an error's row
    faults: tuple[str, ...]  # promises that an audio table's file does not keep, in words


def read_stored_file(store: ObjectStore, table: Table, song_id: str) -> StoredFile | None:
    """What is known of the song's file, from one read of its end; None where the song has no file.

    Raises:
        ValueError: it is not Parquet, or has no lineage: it was not written by Bandscope.
    """
    footer = read_footer(store, table, song_id)
    if footer is None:
        return None
    lineage, notes = lineage_and_notes(footer, store, table, song_id)
    if table not in AUDIO_TABLES:
        return StoredFile(lineage, notes, None, ())
    groups = [_statistics(footer.row_group(index)) for index in range(footer.num_row_groups)]
    if len(groups) == 1 and groups[0].get("block") is None:  # the row of a rejection
        return StoredFile(lineage, notes, None, tuple(_schema_faults(footer, table)))
    faults = [*_schema_faults(footer, table), *_block_faults(groups)]
    frames = sum(group["frames"][0] for group in groups if group.get("frames"))
    return StoredFile(lineage, notes, frames, tuple(faults))


def _schema_faults(footer: Any, table: Table) -> Iterator[str]:
    found = footer.schema.to_arrow_schema()
    expected = table.schema
    # A file of before a column was added ends earlier.
    if found.names != expected.names[: len(found.names)]:
        yield f"its columns are {', '.join(found.names)}"
        return
    for field in found:
        wanted = expected.field(field.name).type
        if field.type != wanted:
            yield f"its column {field.name} is {field.type}, and not {wanted}"


def _block_faults(groups: list[dict[str, tuple[Any, Any]]]) -> Iterator[str]:
    """What is wrong with the blocks; each group's statistics are column → (smallest, largest)."""
    for index, group in enumerate(groups):
        start = index * BLOCK_FRAMES
        if group.get("block") != (index, index) or group.get("start_frame") != (start, start):
            yield f"its row group {index} is not block {index}, from frame {start:,} on"
            return
        frames = group.get("frames")
        last = index == len(groups) - 1
        if frames is None or frames[0] != frames[1] or not (last or frames[0] == BLOCK_FRAMES):
            yield f"its block {index} does not hold {BLOCK_FRAMES:,} frames of every stem"
        for level in ("peak", "gain"):
            extremes = group.get(level)
            if extremes is None or not all(map(math.isfinite, extremes)):
                yield f"its block {index} has a {level} that is no number"


def _statistics(group: Any) -> dict[str, tuple[Any, Any]]:
    """Column → (smallest, largest) value of a row group; not of columns that hold only nulls, or only NaN."""
    found: dict[str, tuple[Any, Any]] = {}
    for index in range(group.num_columns):
        column = group.column(index)
        statistics = column.statistics
        if statistics is not None and statistics.has_min_max:
            found[column.path_in_schema] = (statistics.min, statistics.max)
    return found
