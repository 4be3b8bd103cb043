"""The record of the digests that the inventory does not know: written down when the files come, compared with later.

Of some models the inventory knows only the revision. When such a model is pulled, what the hub's metadata states of
its files at that revision is written to ``pins.json`` in the model's folder; when it is added from a folder, what was
found there. From then on exactly these files are the model. The record guards against damage and mistakes, not
against someone who may write into the models folder.
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
    """A file of a model as it must be from now on."""

    bytes: int
    sha256: str  # full, hexadecimal
    revision: (
        str | None
    )  # of the repository whose metadata vouches for the file; None where it was added as found

    @property
    def origin(self) -> str:
        """What stands after "the file": who says that it must be this one."""
        if self.revision is None:
            return "as it was added, for which only the one who added it vouches"
        return f"that the hub's metadata states at revision {self.revision}"


def find_pins(model: Model, folder: Path) -> dict[str, Pin]:
    """What is pinned of ``model`` in ``folder``, by file name; empty where the model was never pulled or added.

    A record that cannot be read, that is of another revision than the inventory's, or in which a file is missing
    that the model must have, proves nothing and counts as none.
    """
    if model.unlisted is None:
        return {}
    try:
        record = cast(dict[str, dict[str, Any]], json.loads((folder / PINS).read_text("utf-8")))
        pins = {
            name: Pin(int(entry["bytes"]), str(entry["sha256"]), entry["revision"])
            for name, entry in record.items()
        }
    # None, no JSON, or JSON of another shape.
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    if any(pin.revision not in (None, _revision(model)) for pin in pins.values()):
        return {}
    listed = {file.name for file in model.files}
    pins = {name: pin for name, pin in pins.items() if model.unlisted.wants(name) and name not in listed}
    return {} if model.unlisted.unmet(pins) else pins


def are_of_the_hub(pins: Mapping[str, Pin]) -> bool:
    """Whether there are pins, and the hub's metadata vouches for all of them."""
    return bool(pins) and all(pin.revision is not None for pin in pins.values())


def record_pins(pins: Mapping[str, Pin], folder: Path, pending: Path) -> None:
    """Replace the record of ``folder``, atomically: the new record is written to ``pending`` and renamed."""
    text = json.dumps({name: asdict(pin) for name, pin in sorted(pins.items())}, indent=2)
    pending.write_text(f"{text}\n", "utf-8")
    os.replace(pending, folder / PINS)


def known_files(model: Model, pins: Mapping[str, Pin]) -> tuple[ModelFile, ...]:
    """The files of a model whose digests are known: those of the inventory, then those that are pinned."""
    pinned = [ModelFile(name, pin.bytes, pin.sha256, origin=pin.origin) for name, pin in sorted(pins.items())]
    return *model.files, *pinned


def _revision(model: Model) -> str | None:
    return model.source.revision if isinstance(model.source, HubSource) else None
