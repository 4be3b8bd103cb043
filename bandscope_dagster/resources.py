"""What the assets are given: the settings, the object store, and the models, each loaded once per process."""

from functools import cache

import dagster as dg

from bandscope_dagster.separation.device import resolve_device
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.registry import load_separator
from bandscope_dagster.settings import Settings
from bandscope_dagster.tagging.protocol import Tagger
from bandscope_dagster.tagging.registry import load_tagger


@cache
def _separator(name: str, device: str) -> Separator:
    return load_separator(name, device)


@cache
def _tagger(name: str, device: str) -> Tagger:
    return load_tagger(name, device)


class Models:
    """The models that the settings choose, verified and loaded at first use, and kept for the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def separator(self) -> Separator:
        """The separator, on the device that the settings name."""
        return _separator(self._settings.separator, resolve_device(self._settings.device))

    def tagger(self) -> Tagger:
        """The tagger, on the device that the settings name."""
        return _tagger(self._settings.tagger, resolve_device(self._settings.device))


def resources(settings: Settings) -> dict[str, dg.ResourceDefinition]:
    """The resources of the code location; nothing is opened or loaded before a run needs it."""
    return {
        "settings": dg.ResourceDefinition.hardcoded_resource(settings),
        "store": dg.ResourceDefinition(lambda _: settings.open_store()),
        "models": dg.ResourceDefinition(lambda _: Models(settings)),
    }
