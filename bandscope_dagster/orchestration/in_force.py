"""The version of each per-song asset in force: its code version, and a digest of model, weights and parameters.

Dagster compares the version of the asset with that of each song's last materialization. So the UI shows a song as
outdated as soon as a setting, the weights, a prompt or the vocabulary differ. Stored files keep only the code version.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any, Final

from bandscope_dagster.input_digests import CODE_VERSIONS, FLAC_BITS, digest
from bandscope_dagster.models.inventory import HubSource, load_inventory
from bandscope_dagster.separation.presets import RECIPES, find_preset, name_of
from bandscope_dagster.settings import Settings, load_settings
from bandscope_dagster.storage.tables.schemas import SONG_TABLES
from bandscope_dagster.tagging.answers.parse import PARSER_VERSION
from bandscope_dagster.tagging.prompts import load_dialogue
from bandscope_dagster.tagging.qwen_omni import load_qwen_omni
from bandscope_dagster.tagging.registry import SERVED, TAGGERS, served_name
from bandscope_dagster.tagging.served_omni import UNKNOWN
from bandscope_dagster.tagging.vocabulary import load_vocabulary

DIGITS: Final = 8  # hex digits of the digest
SPEED_ONLY: Final = ("batch", "onednn")  # options that do not change the results


def parameters_in_force(settings: Settings) -> dict[str, dict[str, Any]]:
    """Per-song table → all that its rows depend on besides the upload and the code, without loading a model."""
    bits = {FLAC_BITS: settings.flac_bits}
    separator = _separator(settings) | _options(asdict(settings.separation))
    tagger = {
        "tagger": settings.tagger,
        **_tagger_weights(settings),
        **_options(asdict(settings.tagging)),
        "vocabulary": load_vocabulary().sha256,
    }
    if TAGGERS.get(settings.tagger) is load_qwen_omni:
        tagger |= {"prompts": load_dialogue(settings.tag_mode or "list").sha256, "parser": PARSER_VERSION}
    return {
        "songs": asdict(settings.limits),
        "decoded_waveforms": bits,
        "stems": bits | separator,
        "instrument_tags": tagger,
        "stem_instrument_tags": {"stems": bits | separator, **tagger},
    }


def _tagger_weights(settings: Settings) -> dict[str, str]:
    """The weights of the tagger: by the inventory, or the model on a server. The server's address does not matter."""
    server = settings.tagger_server
    if server is None or settings.tagger not in SERVED:
        return {"weights": _weights(settings.tagger)}
    return {"served_model": served_name(settings.tagger, server), "revision": server.revision or UNKNOWN}


def versions_of(settings: Settings) -> Mapping[str, str]:
    """Per-song table → its version under ``settings``, such as ``2-1f0c9a3b``."""
    parameters = parameters_in_force(settings)
    return {
        table.name: f"{CODE_VERSIONS[table.name]}-{digest(parameters[table.name])[:DIGITS]}"
        for table in SONG_TABLES
    }


def words_in_force(settings: Settings) -> dict[str, str]:
    """The separator and the tagger with their options that are set, for people: kind → text."""
    kinds = {
        "separator": (name_of(settings.separator), asdict(settings.separation)),
        "tagger": (settings.tagger, asdict(settings.tagging)),
    }
    words = {
        kind: ", ".join([name, *(f"{option} {_words(value)}" for option, value in _options(options).items())])
        for kind, (name, options) in kinds.items()
    }
    if (server := settings.tagger_server) is not None and settings.tagger in SERVED:
        words["tagger"] += f", as {served_name(settings.tagger, server)} on a server"
    return words


def _separator(settings: Settings) -> dict[str, Any]:
    """The separator by its name and weights; a preset also by what it says about the chosen stems."""
    name, stems = settings.separator, settings.separation.stems
    preset = find_preset(name)
    if preset is None:
        return {"separator": name, "weights": _weights(name)}
    weights = {model: _weights(model) for model in preset.models(stems)}
    return {"separator": preset.name, RECIPES: preset.recipes_of(stems), "weights": weights}


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set and change the results."""
    return {name: value for name, value in options.items() if value is not None and name not in SPEED_ONLY}


def _words(value: Any) -> str:
    return " and ".join(value) if isinstance(value, tuple) else str(value)


def _weights(name: str) -> str:
    """The digest or revision of a model's weights in the inventory; empty for an unknown model."""
    model = load_inventory().get(name)
    if model is None:
        return ""
    return model.published_sha256 or (model.source.revision if isinstance(model.source, HubSource) else "")


@cache
def versions_in_force() -> Mapping[str, str]:
    """The versions under the settings of this process: those of the assets, and of all that its runs report.

    Raises:
        SettingsError: a setting has an invalid value.
    """
    return versions_of(load_settings())
