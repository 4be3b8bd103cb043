"""All taggers, by name. Add a new tagger here."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import HubSource, Model, find_model
from bandscope_dagster.models.store import model_folder
from bandscope_dagster.tagging import instruments
from bandscope_dagster.tagging.ast import load_ast
from bandscope_dagster.tagging.musicnn import Musicnn
from bandscope_dagster.tagging.options import ServerOptions, TaggingOptions
from bandscope_dagster.tagging.presence_rule import PresenceRule, PresentFrom
from bandscope_dagster.tagging.protocol import AnyTagger, Tagger
from bandscope_dagster.tagging.qwen_omni import load_qwen_omni
from bandscope_dagster.tagging.served_omni import ServerFacts, load_served_omni, server_facts

Loader = Callable[[Model, Path, str, TaggingOptions], Tagger]  # the model, its folder, device, options

TAGGERS: Final[Mapping[str, Loader]] = {
    instruments.NAME: lambda _, __, device, options: instruments.Instruments(device, options),
    "musicnn": lambda _, __, device, options: Musicnn(device, options),
    "ast": load_ast,
    "qwen2.5-omni": load_qwen_omni,
    "qwen3-omni": load_qwen_omni,
}

SERVED: Final = ("qwen2.5-omni", "qwen3-omni")
"""The taggers that a server can run instead of this process."""

WITHOUT_SCORES: Final = SERVED
"""The taggers whose tags have no scores: every instrument that they name counts as present."""

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


def load_tagger(
    name: str,
    models_folder: Path,
    device: str,
    options: TaggingOptions,
    server: ServerOptions | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> AnyTagger:
    """The tagger ``name``: with verified weights, on ``device``, a device name of torch ("cuda:0"); or on a server.

    A server may take minutes to answer; the wait ends once ``stopped`` is true.

    Raises:
        KeyboardInterrupt: ``stopped`` became true.
        SettingsError: the tagger does not exist, an option does not fit it, or the server does not serve it.
        ModelFileError: one of its files is missing or is not the one in the inventory.
        ServerUnavailable: the server does not answer.
    """
    require_known(name, server)
    model = find_model(name)
    if server is not None:
        return load_served_omni(name, served_name(name, server), server, options, stopped)
    return TAGGERS[name](model, model_folder(model, models_folder), device, options)


def require_known(name: str, server: ServerOptions | None) -> None:
    """Raise SettingsError unless there is a tagger ``name``, which a server can run if one is set."""
    if name not in TAGGERS:
        raise SettingsError(f"BANDSCOPE_TAGGER={name!r} is unknown; choose one of {', '.join(TAGGERS)}")
    if server is not None and name not in SERVED:
        raise SettingsError(
            f"BANDSCOPE_TAGGER_URL has no meaning for BANDSCOPE_TAGGER={name!r}: unset it, or choose "
            f"{' or '.join(SERVED)}"
        )


def served_name(name: str, server: ServerOptions) -> str:
    """The name of a tagger's model on a server: by the options, or else that of the repository with its weights."""
    source = find_model(name).source
    return server.model or (source.repository if isinstance(source, HubSource) else name)


def facts_of_server(name: str, server: ServerOptions) -> ServerFacts:
    """The server's own statements about itself and the tagger ``name``.

    Raises:
        SettingsError: it does not serve the tagger, or refuses to answer.
        ServerUnavailable: it does not answer.
    """
    return server_facts(server, served_name(name, server))
