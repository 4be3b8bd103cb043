"""The instruments of a song as a table for spreadsheets."""

import csv
import io
from typing import Any, Final

from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import TAG_TABLES
from bandscope_dagster.storage.tables.song_tables import read_table

INSTRUMENT_COLUMNS: Final = ["source", "instrument", "family", "score", "start_s", "end_s", "layer", "model"]


def instruments_csv(store: ObjectStore, song_id: str) -> bytes:
    """CSV in UTF-8, with a row for every window and instrument of the mixture and the stems."""
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, INSTRUMENT_COLUMNS)
    writer.writeheader()
    for table in TAG_TABLES:
        tags = read_table(store, table, song_id, INSTRUMENT_COLUMNS)
        rows: list[dict[str, Any]] = tags.to_pylist() if tags is not None else []
        writer.writerows(row for row in rows if row["instrument"] is not None)
    return file.getvalue().encode()
