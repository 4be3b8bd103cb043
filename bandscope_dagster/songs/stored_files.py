"""The footer of a song's stored file: its lineage, its notes, and the promises of its table that it breaks."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bandscope_dagster.audio.blocks import BLOCK_FRAMES
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import Lineage, lineage_and_notes, read_footer, schema_faults
from bandscope_dagster.storage.tables.schemas import Table


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the store."""

    lineage: Lineage
    notes: Mapping[str, str]  # measurements made when it was written
    frames: int | None  # in an audio table, at 44.1 kHz; None for other tables and for an error
    faults: tuple[str, ...]  # broken promises of the table, in words


def read_stored_file(store: ObjectStore, table: Table, song_id: str) -> StoredFile | None:
    """Read the footer of the song's file, with one request for its end; None if the song has no file.

    Raises:
        DamagedFile: the file is not Parquet, has no lineage, or is the file of another song.
    """
    footer = read_footer(store, table, song_id)
    if footer is None:
        return None
    lineage, notes = lineage_and_notes(footer, store, table, song_id)
    if table.kind != "audio":
        return StoredFile(lineage, notes, None, tuple(schema_faults(footer, table)))
    groups = [_statistics(footer.row_group(index)) for index in range(footer.num_row_groups)]
    if len(groups) == 1 and groups[0].get("block") is None:  # the row of a rejection
        return StoredFile(lineage, notes, None, tuple(schema_faults(footer, table)))
    faults = [*schema_faults(footer, table), *_block_faults(groups)]
    frames = sum(group["frames"][0] for group in groups if group.get("frames"))
    return StoredFile(lineage, notes, frames, tuple(faults))


def read_usable_file(store: ObjectStore, table: Table, song_id: str) -> StoredFile | None:
    """The same; None also if the file is damaged or breaks a promise of its table."""
    try:
        found = read_stored_file(store, table, song_id)
    except DamagedFile:
        return None
    return None if found is None or found.faults else found


def _block_faults(groups: list[dict[str, tuple[Any, Any]]]) -> Iterator[str]:
    """The faults of the blocks. Each group is the statistics of a row group: column → (smallest, largest)."""
    for index, group in enumerate(groups):
        start = index * BLOCK_FRAMES
        if group.get("block") != (index, index) or group.get("start_frame") != (start, start):
            yield f"its row group {index} is not block {index}, which starts at frame {start:,}"
            return
        frames = group.get("frames")
        last = index == len(groups) - 1
        if frames is None or frames[0] != frames[1] or not (last or frames[0] == BLOCK_FRAMES):
            yield f"its block {index} does not have {BLOCK_FRAMES:,} frames of every stem"
        for level in ("peak", "gain"):
            extremes = group.get(level)
            if extremes is None or not all(map(math.isfinite, extremes)):
                yield f"its block {index} has a {level} that is not a number"


def _statistics(group: Any) -> dict[str, tuple[Any, Any]]:
    """Column → (smallest, largest) value in a row group, without columns that have only nulls or only NaN."""
    found: dict[str, tuple[Any, Any]] = {}
    for index in range(group.num_columns):
        column = group.column(index)
        statistics = column.statistics
        if statistics is not None and statistics.has_min_max:
            found[column.path_in_schema] = (statistics.min, statistics.max)
    return found
