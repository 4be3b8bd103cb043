"""All taggers, by name. Add a new tagger here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import Model, find_model
from bandscope_dagster.models.store import model_folder
from bandscope_dagster.tagging import instruments
from bandscope_dagster.tagging.ast import load_ast
from bandscope_dagster.tagging.musicnn import Musicnn
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.presence_rule import PresenceRule, PresentFrom
from bandscope_dagster.tagging.protocol import Tagger
from bandscope_dagster.tagging.qwen_omni import load_qwen_omni

Loader = Callable[[Model, Path, str, TaggingOptions], Tagger]  # the model, its folder, device, options

TAGGERS: Final[Mapping[str, Loader]] = {
    instruments.NAME: lambda _, __, device, options: instruments.Instruments(device, options),
    "musicnn": lambda _, __, device, options: Musicnn(device, options),
    "ast": load_ast,
    "qwen2.5-omni": load_qwen_omni,
    "qwen3-omni": load_qwen_omni,
}

_ONE_BOUND: Final[Mapping[str | None, float]] = {"musicnn": 0.2, "ast": 0.2, None: 0.5}
"""Tagger → the lowest score of an instrument that counts as present in a window; None → the default of the others.

musicnn's scores are low. In ten windows (the excerpt in the stempeg package: the mixture and its four true stems), 15
instruments with a score of at least 0.1 were right and 14 wrong; at 0.15, 11 and 8; at 0.2, 9 and 4; at 0.3, 4 and 1;
at 0.4, none. The value for AST is not measured: its weights were not available.
"""


def present_from(setting: float | None, audible_db: float) -> PresentFrom:
    """The rule of each tagger; a ``setting`` is the one bound of all taggers and instruments, window by window.

    ``audible_db`` is ``PresenceRule.audible_db`` of all rules.
    """
    if setting is not None:
        return {None: PresenceRule(setting, audible_db=audible_db)}
    rules = {tagger: PresenceRule(bound, audible_db=audible_db) for tagger, bound in _ONE_BOUND.items()}
    return {instruments.NAME: replace(instruments.presence_rule(), audible_db=audible_db), **rules}


def load_tagger(name: str, models_folder: Path, device: str, options: TaggingOptions) -> Tagger:
    """The tagger ``name``, with verified weights, on ``device``, a device name of torch ("cuda:0").

    Raises:
        SettingsError: the tagger does not exist, or an option does not fit it.
        ModelFileError: one of its files is missing or is not the one in the inventory.
    """
    if name not in TAGGERS:
        raise SettingsError(f"BANDSCOPE_TAGGER={name!r} is unknown; choose one of {', '.join(TAGGERS)}")
    model = find_model(name)
    return TAGGERS[name](model, model_folder(model, models_folder), device, options)
