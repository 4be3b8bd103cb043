"""The separators by name: the one place that knows which there are."""

from collections.abc import Callable

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.spleeter import NAME as SPLEETER
from bandscope_dagster.separation.spleeter import Spleeter

SEPARATORS: dict[str, Callable[[str], Separator]] = {  # each is built with a device that exists
    SPLEETER: Spleeter,
}


def load_separator(name: str, device: str) -> Separator:
    """The separator called ``name``, its weights verified and on ``device``, as torch names it ("cuda:0").

    Raises:
        SettingsError: there is no such separator.
        ModelFileError: the weights are missing or are not those in the inventory.
    """
    if name not in SEPARATORS:
        raise SettingsError(f"BANDSCOPE_SEPARATOR={name!r} is unknown; choose one of {', '.join(SEPARATORS)}")
    return SEPARATORS[name](device)
