"""What can be chosen about tagging; what is left open is the tagger's own choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bandscope_dagster.errors import SettingsError

Mode = Literal["list", "layers"]


@dataclass(frozen=True, slots=True)
class TaggingOptions:
    """Options of a tagger; None is the tagger's own default. Each is the setting ``TAG_`` and its name in capitals."""

    window_s: float | None = None  # seconds that the tagger listens to at once
    hop_s: float | None = None  # seconds from the start of one window to that of the next
    batch: int | None = None  # windows in one call of the model, at most
    mode: Mode | None = None  # how a language model is asked

    def refuse(self, *names: str, tagger: str) -> None:
        """Raise SettingsError where one of these options is set: the tagger does not have it."""
        for name in names:
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"BANDSCOPE_TAG_{name.upper()}={getattr(self, name)} has no meaning for {tagger}: unset it, "
                    f"or choose another BANDSCOPE_TAGGER"
                )
