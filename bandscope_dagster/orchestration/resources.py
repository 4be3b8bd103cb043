"""The resources of the assets: the settings, the object store, and the models, each loaded once per process."""

from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Final

import dagster as dg

from bandscope_dagster.device import resolve_device
from bandscope_dagster.models.inventory import Model, find_model
from bandscope_dagster.orchestration.in_force import words_in_force
from bandscope_dagster.orchestration.used_stores import check_store
from bandscope_dagster.pipeline.model_turns import ModelThread
from bandscope_dagster.separation.ensemble import AnySeparator
from bandscope_dagster.separation.registry import load_separator, models_of
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import TABLES
from bandscope_dagster.tagging.protocol import ON_A_SERVER, AnyTagger
from bandscope_dagster.tagging.registry import load_tagger, require_known

_separator = cache(load_separator)
_tagger = cache(load_tagger)
_in_turns = cache(ModelThread)  # the one of this process
_LOADING: Final = RLock()  # the second thread that asks for a model gets the one that the first has loaded
_SHARED: Final = Event()


def share_models() -> None:
    """Let several runs of this process use its models at once; their calls take turns. Call it before any run."""
    _SHARED.set()


class Models:
    """The models of the settings: verified and loaded at first use, and kept for the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def separator(self) -> AnySeparator:
        """The separator, on the device of the settings."""
        settings = self._settings
        device = resolve_device(settings.models_device)
        with _LOADING:
            model = _separator(settings.separator, settings.models_path, device, settings.separation)
        return _in_turns().separator(model) if _SHARED.is_set() else model

    def load_ahead(self, tables: Collection[str]) -> None:
        """Load in a thread what ``tables`` will need, while something else goes on. An error is raised at first use."""

        def load() -> None:
            with suppress(Exception):
                for model in models_here(self._settings, tables):
                    (self.separator if model.kind == "separator" else self.tagger)()

        Thread(target=load, name="load-models", daemon=True).start()

    def tagger(self, stopped: Callable[[], bool] = lambda: False) -> AnyTagger:
        """The tagger, on the device of the settings, or on their server, which is asked for its facts each time.

        The wait for a server ends with KeyboardInterrupt once ``stopped`` is true.
        """
        settings = self._settings
        if (server := settings.tagger_server) is not None:
            return load_tagger(
                settings.tagger, settings.models_path, ON_A_SERVER, settings.tagging, server, stopped
            )
        device = resolve_device(settings.models_device)
        with _LOADING:
            model = _tagger(settings.tagger, settings.models_path, device, settings.tagging)
        return _in_turns().tagger(model) if _SHARED.is_set() else model


def models_here(settings: Settings, tables: Collection[str]) -> list[Model]:
    """The models of the settings that this process runs to compute ``tables``: their weights are needed here.

    Raises:
        SettingsError: a setting names an unknown model, or a server for a tagger that needs none.
    """
    needed = {TABLES[table].model for table in tables}
    found = models_of(settings.separator, settings.separation) if "separator" in needed else []
    if "tagger" in needed:
        server = settings.tagger_server
        require_known(settings.tagger, server)
        if server is None:
            found.append(find_model(settings.tagger))
    return found


def resources(settings: Settings) -> dict[str, dg.ResourceDefinition]:
    """The resources of the code location; they are opened and loaded when a run needs them."""
    models = "; ".join(f"{kind}: {text}" for kind, text in words_in_force(settings).items())
    return {
        "settings": dg.ResourceDefinition.hardcoded_resource(settings, description="The settings in force."),
        "store": dg.ResourceDefinition(
            lambda context: _open_store(settings, context.instance), description=f"In {settings.storage}."
        ),
        "models": dg.ResourceDefinition(lambda _: Models(settings), description=f"In force: {models}."),
    }


def _open_store(settings: Settings, instance: dg.DagsterInstance | None) -> ObjectStore:
    """Raises StoreLost if the home of the instance has used this store, and nothing is there any more."""
    store = settings.open_store()
    if instance is not None:
        check_store(store, Path(instance.root_directory))
    return store
