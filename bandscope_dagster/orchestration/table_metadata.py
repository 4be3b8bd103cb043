"""Metadata of a table for the Dagster UI: its columns, and the place and size of a stored file."""

from typing import Any

import dagster as dg

from bandscope_dagster.storage.tables.columns import Column
from bandscope_dagster.storage.tables.schemas import Table
from bandscope_dagster.storage.tables.song_tables import Written


def column_schema(table: Table) -> dg.TableSchema:
    """The table's columns with types, units, descriptions and examples."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=str(column.type),
                description=_description(column),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ]
    )


def _description(column: Column) -> str:
    unit = f" [{column.unit}]" if column.unit else ""
    return f"{column.description}{unit} (such as {column.example_text})"


def written_metadata(written: Written) -> dict[str, Any]:
    """A file's URI, rows and size."""
    return {
        "dagster/uri": written.uri,
        "dagster/partition_row_count": written.rows,
        "size_mb": round(written.bytes / 1e6, 3),
    }
