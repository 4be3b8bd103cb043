"""The list of separators, by name, and the presets that combine them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import Model, digest_of_weights, find_model
from bandscope_dagster.models.store import model_folder
from bandscope_dagster.separation.chosen_stems import PARAMETER
from bandscope_dagster.separation.chunked import load_chunked
from bandscope_dagster.separation.demucs.model import load_demucs
from bandscope_dagster.separation.ensemble import AnySeparator, Ensemble
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.presets import BUILT_IN, MODELS, RECIPES, Preset, find_preset, model_names
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.spleeter import NAME as SPLEETER
from bandscope_dagster.separation.spleeter import Spleeter
from bandscope_dagster.separation.wrapped import ChosenStems

Loader = Callable[[Model, Path, str, SeparationOptions], Separator]  # the model, its folder, device, options

SEPARATORS: Final[Mapping[str, Loader]] = {
    SPLEETER: lambda _, __, device, options: Spleeter(device, options),
    "htdemucs": load_demucs,
    "htdemucs_ft": load_demucs,
    "htdemucs_6s": load_demucs,
    "scnet-large": load_chunked,
    "scnet-xl-ihf": load_chunked,
    "bs-roformer": load_chunked,
    "bs-roformer-sw": load_chunked,
    "mel-band-roformer": load_chunked,
}


def models_of(separator: str, options: SeparationOptions) -> list[Model]:
    """The models that a separator needs for the chosen stems: itself, or those of a preset.

    Raises:
        SettingsError: the name is unknown.
    """
    if separator not in SEPARATORS and find_preset(separator) is None:
        names = ", ".join((*SEPARATORS, *BUILT_IN))
        raise SettingsError(
            f"BANDSCOPE_SEPARATOR={separator!r} is unknown; choose one of {names}, or the path of a preset (.toml)"
        )
    return [find_model(name) for name in model_names(separator, options.stems)]


def load_separator(name: str, models_folder: Path, device: str, options: SeparationOptions) -> AnySeparator:
    """The model or preset called ``name``, its weights verified and on ``device``, as torch names it ("cuda:0").

    With ``options.stems`` it has only these stems, and computes only what they need.

    Raises:
        SettingsError: the name is unknown, or an option does not fit the separator.
        ModelFileError: the weights are missing or differ from the inventory.
    """
    models = models_of(name, options)
    preset = find_preset(name)
    if preset is not None:
        return _load_ensemble(preset, models, models_folder, device, options)
    return _load_model(models[0], models_folder, device, options)


def _load_model(model: Model, models_folder: Path, device: str, options: SeparationOptions) -> Separator:
    separator = SEPARATORS[model.name](model, model_folder(model, models_folder), device, options)
    return separator if options.stems is None else ChosenStems(separator, options.stems)


def _load_ensemble(
    preset: Preset, models: list[Model], models_folder: Path, device: str, options: SeparationOptions
) -> Ensemble:
    """The models of a preset, each once, and with the stems that are needed of it. All share the same options."""
    stems_of = preset.models(options.stems)
    members: dict[str, Separator] = {}
    for model in models:
        stems = stems_of[model.name]
        chosen = replace(options, stems=None if stems == model.stems else stems)
        try:
            members[model.name] = _load_model(model, models_folder, device, chosen)
        except SettingsError as error:
            raise SettingsError(f"preset {preset.name}: {error}") from None
    numbers = {name: number for number, name in enumerate(members)}
    computed = {
        stem: tuple((numbers[name], members[name].stems.index(stem)) for name in preset.recipes[stem])
        for stem in preset.needed(options.stems)
    }
    stems = options.stems or preset.stems
    params: dict[str, Any] = {
        RECIPES: preset.recipes_of(options.stems),
        MODELS: {
            model.name: {
                "sha256": members[model.name].identity.sha256,
                "files": dict(members[model.name].identity.files),
                "params": members[model.name].identity.params,
            }
            for model in models
        },
    }
    if options.stems is not None or not preset.is_whole:
        params[PARAMETER] = list(stems)
    weights = digest_of_weights(member.identity.sha256 for member in members.values())
    identity = ModelIdentity(preset.name, weights, params)
    return Ensemble(identity, stems, tuple(members.values()), computed)
