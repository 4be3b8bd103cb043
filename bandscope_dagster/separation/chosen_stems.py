"""A choice of a separator's stems: ``vocals,drums``, or ``-drums`` for all but the drums. Only these are computed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.separation.presets import RECIPES, find_preset, name_of

PARAMETER: Final = "stems"
"""Name of the chosen stems in the parameters of a separator, and so in the lineage; absent if all are computed."""
EXCEPT: Final = "-"  # before a name: all stems but this one


def stems_of(separator: str) -> tuple[str, ...]:
    """The names of all stems of a model or a preset, in its order; empty if there is no such separator."""
    preset = find_preset(separator)
    if preset is not None:
        return preset.stems
    model = load_inventory().get(separator)
    return () if model is None else model.stems


def parse_stems(text: str, separator: str) -> tuple[str, ...] | None:
    """The stems that ``text`` chooses, in the separator's order; None for all, which is no choice.

    ``text`` is names with commas between them, or names with a minus sign before each for all but these.

    Raises:
        SettingsError: the separator lacks a stem, no stem is left, or both forms are mixed.
    """
    known = stems_of(separator)
    if not known:
        return None  # the name of the separator is wrong, which is an error wherever it is used
    words = [word for part in text.split(",") if (word := part.strip())]
    left_out = [word.removeprefix(EXCEPT).strip() for word in words if word.startswith(EXCEPT)]
    if left_out and len(left_out) < len(words):
        raise SettingsError(f"{text!r} mixes stems to compute with stems to leave out; {_forms(known)}")
    names = left_out or words
    require_stems(names, name_of(separator), known)
    chosen = tuple(stem for stem in known if (stem in names) != bool(left_out))
    if not chosen:
        raise SettingsError(f"{text!r} leaves no stem of {name_of(separator)}; {_forms(known)}")
    return None if chosen == known else chosen


def require_stems(names: Collection[str], separator: str, known: Sequence[str]) -> None:
    """Raise SettingsError if one of ``names`` is not among ``known``, the stems of the separator."""
    for name in names:
        if name not in known:
            raise SettingsError(f"{separator} has no stem {name!r}; its stems are {', '.join(known)}")


def _forms(known: Sequence[str]) -> str:
    return f"name some of {', '.join(known)}, or {EXCEPT}{known[0]} for all but {known[0]}"


def chosen_stems(params: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The stems in a separator's parameters, as a lineage has them; None if all stems were computed."""
    stems = params.get(PARAMETER)
    return None if stems is None else tuple(stems)


def stored_stems(model: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """The stems that a lineage of stems tells of, by its model and parameters; empty if the model is not known."""
    return chosen_stems(params) or tuple(params.get(RECIPES, ())) or stems_of(model)
