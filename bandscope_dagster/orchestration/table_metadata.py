"""A table in the Dagster UI: its asset with its columns, and the place and size of a stored file."""

import re
from collections.abc import Sequence
from typing import Any, Final

import dagster as dg
import pyarrow as pa

from bandscope_dagster.input_digests import CODE_VERSIONS
from bandscope_dagster.orchestration.in_force import versions_in_force, words_in_force
from bandscope_dagster.settings import load_settings
from bandscope_dagster.storage.tables.columns import Column
from bandscope_dagster.storage.tables.schemas import Table
from bandscope_dagster.storage.tables.song_tables import Written

SHOWN_OF_WORD: Final = 16  # characters
LONG_WORD: Final = re.compile(r"\w{33,}")


def asset_spec(table: Table, group: str, kind: str, deps: Sequence[str], **options: Any) -> dg.AssetSpec:
    """The asset of a table; ``kind`` is the library that computes it, and ``options`` are those of ``AssetSpec``."""
    return dg.AssetSpec(
        table.name,
        deps=deps,
        description=table.description,
        group_name=group,
        kinds={kind, "parquet"},
        owners=["team:bandscope"],
        code_version=versions_in_force().get(table.name, CODE_VERSIONS[table.name]),
        metadata={"dagster/column_schema": column_schema(table), **_models_in_force(table)},
        **options,
    )


def _models_in_force(table: Table) -> dict[str, str]:
    """The model that the settings choose for a table, with its options."""
    return {} if table.model is None else {table.model: words_in_force(load_settings())[table.model]}


def column_schema(table: Table) -> dg.TableSchema:
    """The table's columns with types, units, descriptions and examples."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=type_text(column.type),
                description=_description(column),
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.columns
        ]
    )


def type_text(kind: Any) -> str:
    """The name of an Arrow type, short enough for a column of the UI: the example in the description has the fields."""
    if pa.types.is_list(kind):
        return f"list<{type_text(kind.value_type)}>"
    if pa.types.is_timestamp(kind):
        return f"timestamp ({kind.tz})"  # all are in microseconds
    return "struct" if pa.types.is_struct(kind) else str(kind)


def _description(column: Column) -> str:
    unit = f" [{column.unit}]" if column.unit else ""
    # The UI breaks no word, and cuts what is longer than the column, such as a whole SHA-256.
    example = LONG_WORD.sub(lambda word: f"{word[0][:SHOWN_OF_WORD]}…", column.example_text)
    return f"{column.description}{unit} (such as {example})"


def written_metadata(written: Written) -> dict[str, Any]:
    """A file's URI, rows and size."""
    return {
        "dagster/uri": written.uri,
        "dagster/partition_row_count": written.rows,
        "size_mb": round(written.bytes / 1e6, 3),
    }
