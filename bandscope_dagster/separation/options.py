"""Options of a separation; the model chooses what is left open."""

from dataclasses import dataclass
from typing import Final, Literal

from bandscope_dagster.errors import SettingsError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
OneDnn = Literal["auto", "on", "off"]

OVERLAP: Final = 0.25  # of a segment, the default of HTDemucs; demucs/apply.py, apply_model


@dataclass(frozen=True, slots=True)
class SeparationOptions:
    """Options of a separator; None is the model's own default. Each is the setting of its name in capitals."""

    shifts: int | None = None  # shifted passes over the song, which are averaged; 0: one unshifted pass
    overlap: float | None = None  # of neighbouring segments, as a share of their length, in [0, 1)
    segment_s: float | None = None  # seconds
    batch: int | None = None  # segments in one call of the model, at most
    precision: Precision | None = None  # of the networks' computations
    onednn: OneDnn = "auto"  # HTDemucs on a CPU; changes the speed only, so it is not in the lineage
    stems: tuple[str, ...] | None = None  # to compute, in the model's order; all if it is None

    def require_precision(self, model: str, device: str) -> None:
        """Raise SettingsError if the device does not have the precision of ``model``."""
        if self.precision == "tf32" and not device.startswith("cuda"):
            raise SettingsError(f"BANDSCOPE_PRECISION=tf32 needs a CUDA device, and {model} runs on {device}")

    def refuse(self, *names: str, model: str) -> None:
        """Raise SettingsError if one of these options is set: the model does not have it."""
        for name in names:
            if getattr(self, name) is not None:
                raise SettingsError(
                    f"BANDSCOPE_{name.upper()}={getattr(self, name)} has no meaning for {model}: unset it, or "
                    f"choose a BANDSCOPE_SEPARATOR that has it"
                )
