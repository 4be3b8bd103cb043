"""The calibration of the embedded tagger: score and presence bound of each class, from ``instruments_bounds.toml``.

``training`` writes the file beside the weights. It is checked when it is read, class by class.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.store import REINSTALL
from bandscope_dagster.tagging.instruments_network import CLASSES

FILE: Final = Path(__file__).with_name("instruments_bounds.toml")
CHOSEN_ON: Final = ("real notes", "rendered audio")
_NUMBERS: Final = ("scale", "rivals", "offset", "present_from")


@dataclass(frozen=True, slots=True)
class ClassBounds:
    """One class of the network: its score is a probability, sigmoid(scale × logit − rivals × highest other + offset).

    That is Platt scaling with a second input: a clarinet that is heard beside a clearer oboe is less likely one.
    """

    scale: float  # above 0
    rivals: float  # at least 0; weight of the highest logit of another class
    offset: float
    present_from: float  # in [0, 1], lowest score at which the instrument counts as present
    chosen_on: str  # the audio that ``present_from`` was chosen on, one of ``CHOSEN_ON``
    audioset: str | None = None  # the class of AudioSet with the same meaning


@cache
def load_bounds() -> Mapping[str, ClassBounds]:
    """The bounds of the tagger, class → bounds, in the order of ``CLASSES``."""
    return read_bounds(FILE)


def read_bounds(path: Path) -> Mapping[str, ClassBounds]:
    """The bounds in a file, in the order of ``CLASSES``.

    Raises:
        ModelFileError: the file cannot be read, lacks a class, or has a value that is not usable; the message has them.
    """
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unusable(path, str(error)) from error
    if problems := _problems(tables):
        raise _unusable(path, "; ".join(problems))
    return {name: ClassBounds(**tables[name]) for name in CLASSES}


def _problems(tables: Mapping[str, Any]) -> list[str]:
    problems = [f"class {name!r} is missing" for name in CLASSES if name not in tables]
    for name, table in tables.items():
        if name not in CLASSES:
            problems.append(f"{name!r} is no class of the network")
        elif not isinstance(table, dict):
            problems.append(f"{name!r} is no table")
        else:
            problems += [f"class {name!r}: {problem}" for problem in _wrong_values(table)]  # pyright: ignore[reportUnknownArgumentType]
    return problems


def _wrong_values(table: Mapping[str, Any]) -> list[str]:
    known = {field.name for field in fields(ClassBounds)}
    wrong = [f"{key} is unknown" for key in table if key not in known]
    for key in _NUMBERS:
        value = table.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            wrong.append(f"{key} must be a finite number, not {value!r}")
        elif key == "scale" and value <= 0:
            wrong.append(f"scale must be above 0, not {value}")
        elif key == "rivals" and value < 0:
            wrong.append(f"rivals must be at least 0, not {value}")
        elif key == "present_from" and not 0 <= value <= 1:
            wrong.append(f"present_from must be from 0 to 1, not {value}")
    if table.get("chosen_on") not in CHOSEN_ON:
        wrong.append(f"chosen_on must be one of {', '.join(CHOSEN_ON)}, not {table.get('chosen_on')!r}")
    if not isinstance(table.get("audioset", ""), str):
        wrong.append(f"audioset must be text, not {table['audioset']!r}")
    return wrong


def _unusable(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path.name} of model bandscope-instruments cannot be used: {what}. Get it with {REINSTALL}."
    )
