"""The list of separators, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import Model, find_model
from bandscope_dagster.models.store import model_folder
from bandscope_dagster.separation.chosen_stems import ChosenStems
from bandscope_dagster.separation.demucs.model import load_demucs
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.spleeter import NAME as SPLEETER
from bandscope_dagster.separation.spleeter import Spleeter

Loader = Callable[[Model, Path, str, SeparationOptions], Separator]  # the model, its folder, device, options

SEPARATORS: Final[Mapping[str, Loader]] = {
    SPLEETER: lambda _, __, device, options: Spleeter(device, options),
    "htdemucs": load_demucs,
    "htdemucs_ft": load_demucs,
    "htdemucs_6s": load_demucs,
}


def load_separator(name: str, models_folder: Path, device: str, options: SeparationOptions) -> Separator:
    """The separator called ``name``, its weights verified and on ``device``, as torch names it ("cuda:0").

    With ``options.stems`` it has only these stems, and computes only what they need.

    Raises:
        SettingsError: the name is unknown, or an option does not fit the separator.
        ModelFileError: the weights are missing or differ from the inventory.
    """
    if name not in SEPARATORS:
        raise SettingsError(f"BANDSCOPE_SEPARATOR={name!r} is unknown; choose one of {', '.join(SEPARATORS)}")
    model = find_model(name)
    separator = SEPARATORS[name](model, model_folder(model, models_folder), device, options)
    return separator if options.stems is None else ChosenStems(separator, options.stems)
