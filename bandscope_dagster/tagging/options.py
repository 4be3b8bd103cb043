"""The options of a tagger; the tagger chooses each one that is not set."""

from dataclasses import dataclass
from typing import Literal

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.tagging.protocol import WindowPlan

Mode = Literal["list", "layers"]


@dataclass(frozen=True, slots=True)
class TaggingOptions:
    """Options of a tagger; None is the tagger's default. ``hop_s`` is the setting ``TAG_HOP_S``, and so on."""

    window_s: float | None = None  # seconds, length of a window
    hop_s: float | None = None  # seconds, from the start of one window to the start of the next
    batch: int | None = None  # windows, most in one call of the model
    mode: Mode | None = None  # the questions to a language model; see ``prompts``

    def refuse(self, *names: str, tagger: str) -> None:
        """Raise SettingsError if one of these options is set: the tagger does not have it."""
        for name in names:
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"BANDSCOPE_TAG_{name.upper()}={getattr(self, name)} has no meaning for {tagger}: unset it, "
                    f"or choose another BANDSCOPE_TAGGER"
                )

    def window_plan(self, tagger: str, sample_rate: int, length: int, lead: int = 0) -> WindowPlan:
        """Windows of ``length`` frames every ``hop_s``, with ``lead``; by default they do not overlap.

        Raises:
            SettingsError: the hop is not above 0, or would skip audio between the windows.
        """
        hop = length if self.hop_s is None else round(self.hop_s * sample_rate)
        if not 0 < hop <= length:
            raise SettingsError(
                f"BANDSCOPE_TAG_HOP_S={self.hop_s} does not fit {tagger}: it must be above 0 and at most the "
                f"{length / sample_rate:g} s of its windows"
            )
        return WindowPlan(sample_rate=sample_rate, length=length, hop=hop, lead=lead)
