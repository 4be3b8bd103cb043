"""Completeness of a model that transformers loads from a folder: every shard exists and is readable.

Weights are one ``model.safetensors``, or shards that ``model.safetensors.index.json`` lists (the names are
 ``SAFE_WEIGHTS_NAME`` and ``SAFE_WEIGHTS_INDEX_NAME`` of ``transformers.utils``).
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, cast

from bandscope_dagster.errors import ModelFileError

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"


def require_all_shards(names: Collection[str], index: Path | None, where: str) -> None:
    """Raise ModelFileError if ``names``, a model's files, lack a shard of its ``index`` or its single weights file.

    ``where`` is the place of the files, for the message.
    """
    needed = {WEIGHTS} if index is None else _shards(index, where)
    if lacking := sorted(needed - set(names)):
        named = f"which {INDEX} names" if index else f"and no {INDEX} that names shards"
        raise ModelFileError(f"The model in {where} is incomplete: it has no {', '.join(lacking)}, {named}.")


def require_readable(weights: Path) -> None:
    """Raise ModelFileError unless a file has a safetensors header and the length that the header implies."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="numpy"):
            pass
    except SafetensorError as error:
        raise ModelFileError(f"{weights.name} is not a complete safetensors file ({error}).") from error


def _shards(index: Path, where: str) -> set[str]:
    try:
        content = cast(dict[str, Any], json.loads(index.read_text("utf-8")))
        shards = {str(shard) for shard in content["weight_map"].values()}
    # Not JSON, or JSON of another shape.
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{INDEX} in {where} is not an index of shards.") from error
    if not shards:
        raise ModelFileError(f"{INDEX} in {where} lists no shards.")
    return shards
