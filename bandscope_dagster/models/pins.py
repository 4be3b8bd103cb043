"""A record of the digests that the inventory does not know, made when the files arrive and used to verify them later.

For some models the inventory has only the revision. A pull writes the sizes and digests in the hub's metadata of that
revision to ``pins.json`` in the model's folder; an add writes those of the added files. From then on the model is
exactly these files. The record protects against damage and mistakes, not against someone who can write to the models
folder.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

from bandscope_dagster.models.inventory import HubSource, Model, ModelFile

PINS: Final = "pins.json"


@dataclass(frozen=True, slots=True)
class Pin:
    """Size and digest that a model's file must have from now on."""

    bytes: int
    sha256: str  # full, hexadecimal
    revision: str | None  # of the hub metadata with this digest; None if the file was added

    @property
    def origin(self) -> str:
        """The source of the digest, for messages: follows the words "the file"."""
        if self.revision is None:
            return "as it was added, which no published digest confirms"
        return f"that the hub's metadata states at revision {self.revision}"


def find_pins(model: Model, folder: Path) -> dict[str, Pin]:
    """The pins of ``model`` in ``folder``, by file name; empty if the model was never pulled or added.

    A record counts as none if it is unreadable, has another revision than the inventory, or lacks a required file.
    """
    if model.unlisted is None:
        return {}
    try:
        record = cast(dict[str, dict[str, Any]], json.loads((folder / PINS).read_text("utf-8")))
        pins = {
            name: Pin(int(entry["bytes"]), str(entry["sha256"]), entry["revision"])
            for name, entry in record.items()
        }
    # No file, not JSON, or JSON of another shape.
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    if any(pin.revision not in (None, _revision(model)) for pin in pins.values()):
        return {}
    listed = {file.name for file in model.files}
    pins = {name: pin for name, pin in pins.items() if model.unlisted.wants(name) and name not in listed}
    return {} if model.unlisted.unmet(pins) else pins


def are_of_the_hub(pins: Mapping[str, Pin]) -> bool:
    """True if there are pins and all of them come from the hub's metadata."""
    return bool(pins) and all(pin.revision is not None for pin in pins.values())


def record_pins(pins: Mapping[str, Pin], folder: Path, pending: Path) -> None:
    """Replace the record of ``folder`` atomically: write the new record to ``pending`` and rename it."""
    text = json.dumps({name: asdict(pin) for name, pin in sorted(pins.items())}, indent=2)
    pending.write_text(f"{text}\n", "utf-8")
    os.replace(pending, folder / PINS)


def known_files(model: Model, pins: Mapping[str, Pin]) -> tuple[ModelFile, ...]:
    """The model's files with known digests: those of the inventory, then the pinned ones."""
    pinned = [ModelFile(name, pin.bytes, pin.sha256, origin=pin.origin) for name, pin in sorted(pins.items())]
    return *model.files, *pinned


def _revision(model: Model) -> str | None:
    return model.source.revision if isinstance(model.source, HubSource) else None
