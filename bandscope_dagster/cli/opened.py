"""The settings and the store that a command works on."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bandscope_dagster.settings import Settings
    from bandscope_dagster.storage.objects.protocol import ObjectStore


def settings_and_store() -> "tuple[Settings, ObjectStore]":
    """Load the settings and open their store; an error if the store that was used before is gone."""
    from bandscope_dagster.orchestration.home import home_path
    from bandscope_dagster.orchestration.used_stores import check_store
    from bandscope_dagster.settings import load_settings

    settings = load_settings()
    store = settings.open_store()
    check_store(store, home_path())
    return settings, store
