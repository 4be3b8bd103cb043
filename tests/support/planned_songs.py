"""Files of a song with the lineages of the real planner and arbitrary content."""

import json
from dataclasses import replace
from typing import Any

from song_rows import block_rows, song_row

from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES, SongPlanner
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.audio_tables import AudioTableWriter
from bandscope_dagster.storage.tables.lineage import TAGS_NOTE, USED_NOTE, Lineage
from bandscope_dagster.storage.tables.schemas import SONGS, STEMS, TABLES
from bandscope_dagster.storage.tables.song_tables import write_error_row, write_table

LIMITS = Limits(max_bytes=1000)
PLANNER = SongPlanner(
    run_id="run",
    separator=ModelIdentity("separator", "11" * 32, {"overlap": 0.25, "sources": ["vocals", "drums"]}),
    tagger=ModelIdentity("tagger", "22" * 32, {"hop": 1, "vocabulary": "33" * 32}),
)
ROW = song_row("song", song_hash="ab" * 32, upload_key="uploads/song.wav")


def validate(store: ObjectStore, row: dict[str, Any] = ROW) -> None:
    """Write the row of ``songs`` as the asset of that name does."""
    made = PLANNER.songs_lineage(row["song_id"], LIMITS, row["song_hash"] or "")
    write_table(store, SONGS, [row], made)


def make(
    store: ObjectStore,
    *tables: str,
    planner: SongPlanner = PLANNER,
    row: dict[str, Any] = ROW,
    **changes: Any,
) -> None:
    """Write files with the lineages of a real plan, and with ``changes`` to these lineages."""
    made = planner.plan(store, row, tables or ANALYSIS_TABLES, reuse=False)
    for table, planned in made.compute.items():
        _write(store, table, replace(planned, **changes), made.rejected)


def _write(store: ObjectStore, table: str, made: Lineage, rejected: str | None = None) -> None:
    if rejected is not None:
        write_error_row(store, TABLES[table], "song", f"upstream: {rejected}", made)
    elif TABLES[table].kind == "tags":
        write_table(store, TABLES[table], [], made, {TAGS_NOTE: json.dumps({"device": "cpu", "batch": 2})})
    else:
        names = ("vocals",) if table == "stems" else ("mixture",)
        with AudioTableWriter(store, TABLES[table], made) as writer:
            rows = block_rows("song", 0, names, seconds=0.1)
            writer.add([{name: row[name] for name in TABLES[table].names} for row in rows])
            notes = {USED_NOTE: json.dumps({"device": "cpu", "batch": 1, "segment": 343_980})}
            writer.commit(notes if table == STEMS.name else {})
