"""Presets: for each stem one model, the mean of several, or what the others leave of the mixture; in TOML, no code."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import Model, load_inventory

SUFFIX: Final = ".toml"  # of a name that is the path of a preset
REST: Final = "rest"  # in the place of a model: the mixture minus all other stems
BUILT_IN: Final = ("karaoke", "htdemucs-mean", "six-stems")
"""The presets of the package, each a file in ``built_in_presets``."""

RECIPES: Final = "preset"
"""Name of the recipes in the parameters of a preset, and so in the lineage."""
MODELS: Final = "models"  # likewise of its models: name → digests and parameters

KEYS: Final = ("name", "stems")  # of a file
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # as the names of models
STEM: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")  # becomes part of file names
TAKEN: Final = ("mixture", REST)  # the mixture is a source beside the stems


@dataclass(frozen=True, slots=True)
class Preset:
    """The models of each stem."""

    name: str
    recipes: Mapping[str, tuple[str, ...]]  # stem → the models whose mean it is; none for the rest

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems, in the order of the file."""
        return tuple(self.recipes)

    @property
    def is_whole(self) -> bool:
        """True if the stems should add up to the mixture: one is the rest, or they include all stems of a model."""
        models = load_inventory()
        used = {model for recipe in self.recipes.values() for model in recipe}
        return () in self.recipes.values() or any(
            set(models[model].stems) <= {*self.recipes} for model in used
        )

    def needed(self, stems: Collection[str] | None = None) -> tuple[str, ...]:
        """The stems that must be computed for ``stems`` (default: all), in order: for the rest, all stems."""
        if stems is None or any(not self.recipes[stem] for stem in stems):
            return self.stems
        return tuple(stem for stem in self.recipes if stem in stems)

    def models(self, stems: Collection[str] | None = None) -> dict[str, tuple[str, ...]]:
        """Model → its stems, in its order, that must be computed for ``stems`` (default: all)."""
        inventory = load_inventory()
        needed = self.needed(stems)
        names = dict.fromkeys(model for stem in needed for model in self.recipes[stem])
        return {
            name: tuple(
                stem for stem in inventory[name].stems if stem in needed and name in self.recipes[stem]
            )
            for name in names
        }

    def recipes_of(self, stems: Collection[str] | None = None) -> dict[str, str | list[str]]:
        """The part of the file that decides ``stems`` (default: all), as JSON for lineages and versions."""
        return {stem: list(self.recipes[stem]) or REST for stem in self.needed(stems)}


def name_of(separator: str) -> str:
    """The name of a separator for people and for lineages: a preset's own name, not the path of its file."""
    preset = find_preset(separator)
    return separator if preset is None else preset.name


def model_names(separator: str, stems: Collection[str] | None = None) -> list[str]:
    """The models that a separator needs for ``stems`` (default: all): itself, or those of a preset."""
    preset = find_preset(separator)
    return [separator] if preset is None else list(preset.models(stems))


@cache
def find_preset(separator: str) -> Preset | None:
    """The preset that a separator's name is, or the path of one; None for any other name.

    A file is read once by a process, so that a run does not change in its middle.

    Raises:
        SettingsError: the file cannot be read, or its content cannot be used; the message names the key.
    """
    if separator in BUILT_IN:
        file = files("bandscope_dagster.separation").joinpath("built_in_presets", f"{separator}{SUFFIX}")
        return parse_preset(file.read_text("utf-8"), f"preset {separator}")
    if not separator.endswith(SUFFIX):
        return None
    path = Path(separator).expanduser()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"the preset {path} cannot be read: {reason}") from None
    preset = parse_preset(text, str(path), path.stem)
    if preset.name in (*BUILT_IN, *load_inventory()):
        raise SettingsError(
            f"{path}: name = {preset.name!r} is the name of another separator; choose one of its own"
        )
    return preset


def parse_preset(text: str, where: str, name: str | None = None) -> Preset:
    """The preset in ``text``, the content of the file ``where``; ``name`` is its name if the text has none.

    Raises:
        SettingsError: the text is no preset; the message has the file, the key, what is wrong and what is allowed.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where}: not valid TOML: {error}") from None
    problems = list(_problems(content, name))
    if problems:
        raise SettingsError("; ".join(f"{where}: {problem}" for problem in problems))
    recipes = {stem: _models(value) for stem, value in content["stems"].items()}
    return Preset(content.get("name", name), recipes)


def _models(value: str | Sequence[str]) -> tuple[str, ...]:
    if value == REST:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _problems(content: Mapping[str, Any], name: str | None) -> Iterator[str]:
    """The problems in the content of a file, one sentence for each key."""
    for key in content.keys() - set(KEYS):
        yield f"{key}: no such key; a preset has {' and '.join(KEYS)}"
    found = content.get("name", name)
    if not isinstance(found, str) or not NAME.fullmatch(found):
        yield f"name = {found!r}: a name has 1 to 64 of a-z, 0-9, _ and -, and begins with a letter or digit"
    stems = content.get("stems")
    if not isinstance(stems, dict) or not stems:
        yield 'stems: missing; it is a table with a line for each stem, such as vocals = "htdemucs_ft"'
        return
    for stem, value in stems.items():
        yield from (f"stems.{stem} = {value!r}: {problem}" for problem in _stem_problems(stem, value))
    rests = [stem for stem, value in stems.items() if value == REST]
    if len(rests) > 1:
        yield f"stems.{rests[1]}: only one stem can be the {REST}, and {rests[0]} is"
    elif len(rests) == len(stems):
        yield f"stems.{rests[0]}: the {REST} needs another stem that a model computes"


def _stem_problems(stem: str, value: object) -> Iterator[str]:
    if not STEM.fullmatch(stem) or stem in TAKEN:
        yield (
            f"a stem's name has 1 to 32 of a-z, 0-9, _ and -, begins with a letter, and is not {' or '.join(TAKEN)}"
        )
        return
    if value == REST:
        return
    separators = {model.name: model for model in load_inventory().values() if model.kind == "separator"}
    having = [model.name for model in separators.values() if stem in model.stems]
    allowed = f"models with this stem: {', '.join(having) or 'none'}; or {REST!r} for what the others leave"
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(each, str) for each in names):
        yield f"it must be the name of a model or a list of names ({allowed})"
        return
    for each in dict.fromkeys(names):
        if names.count(each) > 1:
            yield f"{each} is listed twice"
        elif problem := _model_problem(str(each), stem, separators, in_list=isinstance(value, list)):
            yield f"{problem} ({allowed})"


def _model_problem(name: str, stem: str, separators: Mapping[str, Model], *, in_list: bool) -> str | None:
    if name == REST and in_list:
        return f"the {REST} cannot be part of a mean"
    if name not in separators:
        return f"there is no model {name!r}"
    stems = separators[name].stems
    return None if stem in stems else f"{name} has no stem {stem!r}, only {', '.join(stems)}"
