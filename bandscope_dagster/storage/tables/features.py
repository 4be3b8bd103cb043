"""The types of a table's columns for Hugging Face ``datasets``, as an entry in the footer of every file.

``load_dataset("parquet", …)`` reads the entry, so that its columns have their features without a cast. The JSON is
that of ``datasets`` 5 in its own files (``datasets.Features.arrow_schema``). Only tests use the library itself.
"""

import json
from typing import Any, Final

import pyarrow as pa

from bandscope_dagster.storage.tables.columns import AUDIO
from bandscope_dagster.storage.tables.schemas import Table

FEATURES_ENTRY: Final = "huggingface"
"""The key of the entry that ``datasets`` looks for."""

DTYPES: Final = {"float": "float32", "double": "float64"}
"""Arrow's name of a type → its name in ``datasets``, where they differ."""


def features_entry(table: Table) -> dict[str, str]:
    """The entry of the table's files: ``{"huggingface": '{"info": {"features": …}}'}``."""
    features = {column.name: _feature(column.type) for column in table.columns}
    return {FEATURES_ENTRY: json.dumps({"info": {"features": features}})}


def _feature(kind: Any) -> dict[str, Any]:
    """The feature of an Arrow type. Audio is not decoded: its bytes need the ``gain`` of their row, and torchcodec."""
    if kind == AUDIO:
        return {"decode": False, "_type": "Audio"}
    if pa.types.is_struct(kind):
        return {child.name: _feature(child.type) for child in kind}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": DTYPES.get(str(kind), str(kind)), "_type": "Value"}
