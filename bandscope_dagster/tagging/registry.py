"""The taggers by name: the one place that knows which there are."""

from collections.abc import Callable, Mapping

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.tagging.musicnn import Musicnn
from bandscope_dagster.tagging.protocol import Tagger

TAGGERS: Mapping[str, Callable[[str], Tagger]] = {"musicnn": Musicnn}
"""Name → what loads it onto a device."""


def load_tagger(name: str, device: str) -> Tagger:
    """The tagger called ``name``, its weights verified and on ``device``, as torch names it ("cuda:0").

    Raises:
        SettingsError: there is no such tagger.
        ModelFileError: one of its files is missing or is not the one in the inventory.
    """
    if name not in TAGGERS:
        raise SettingsError(f"BANDSCOPE_TAGGER={name!r} is unknown; choose one of {', '.join(TAGGERS)}")
    return TAGGERS[name](device)
