"""A record of the files that were converted from a legacy pickle on this machine; it is used to verify them.

The inventory lists published files, and a converted file was never published. The record, ``converted.json`` beside
it, has its digest. It also has the pickle's digest. The inventory lists that digest. The record protects against
damage and mistakes, not against someone who can write to the models folder.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from bandscope_dagster.models.inventory import ModelFile

RECORD: Final = "converted.json"


@dataclass(frozen=True, slots=True)
class Conversion:
    """Size and digest of a converted file, and the digest of its pickle."""

    bytes: int
    sha256: str  # full, hexadecimal
    legacy_sha256: str


def find_conversion(file: ModelFile, folder: Path) -> Conversion | None:
    """The record of ``file`` in ``folder``. None if there is no record, or it is of another pickle.

    An unreadable record counts as none.
    """
    conversion = _read(folder).get(file.name)
    if conversion is None or file.legacy is None or conversion.legacy_sha256 != file.legacy.sha256:
        return None
    return conversion


def record_conversion(file: ModelFile, conversion: Conversion, folder: Path, pending: Path) -> None:
    """Add to the record of ``folder`` atomically: write the new record to ``pending`` and rename it."""
    record = _read(folder) | {file.name: conversion}
    text = json.dumps({name: asdict(entry) for name, entry in record.items()}, indent=2)
    pending.write_text(f"{text}\n", "utf-8")
    os.replace(pending, folder / RECORD)


def _read(folder: Path) -> dict[str, Conversion]:
    try:
        found = cast(dict[str, dict[str, Any]], json.loads((folder / RECORD).read_text("utf-8")))
        return {name: Conversion(**entry) for name, entry in found.items()}
    # No file, not JSON, or JSON of another shape.
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}
