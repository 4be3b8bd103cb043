"""The record of files that were converted here from a legacy pickle, so that they can be verified later.

The inventory lists files that were published, and a converted one never was. Its digest is written down when it is
made, in ``converted.json`` beside it, with the digest of the pickle, which does stand in the inventory. The record
guards against damage and mistakes, not against someone who may write into the models folder.
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
    """A file as it was when it was converted, and the digest of the pickle that it was made from."""

    bytes: int
    sha256: str  # full, hexadecimal
    legacy_sha256: str


def find_conversion(file: ModelFile, folder: Path) -> Conversion | None:
    """What is recorded of ``file`` in ``folder``; None unless it was made from the pickle in the inventory.

    A record that cannot be read proves nothing and counts as none.
    """
    conversion = _read(folder).get(file.name)
    if conversion is None or file.legacy is None or conversion.legacy_sha256 != file.legacy.sha256:
        return None
    return conversion


def record_conversion(file: ModelFile, conversion: Conversion, folder: Path, pending: Path) -> None:
    """Add to the record of ``folder``, atomically: the new record is written to ``pending`` and renamed."""
    record = _read(folder) | {file.name: conversion}
    text = json.dumps({name: asdict(entry) for name, entry in record.items()}, indent=2)
    pending.write_text(f"{text}\n", "utf-8")
    os.replace(pending, folder / RECORD)


def _read(folder: Path) -> dict[str, Conversion]:
    try:
        found = cast(dict[str, dict[str, Any]], json.loads((folder / RECORD).read_text("utf-8")))
        return {name: Conversion(**entry) for name, entry in found.items()}
    except (
        FileNotFoundError,
        ValueError,
        TypeError,
        AttributeError,
    ):  # none, no JSON, or JSON of another shape
        return {}
