"""One gain for all files of a song: its stems then still add up to the mixture."""

import math
from dataclasses import dataclass

from bandscope_dagster.errors import BandscopeError


class NoLoudness(BandscopeError):
    """The song has no loudness and cannot be normalised; the message gives the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Gain:
    """The factor for every sample of a song."""

    factor: float  # 1.0 is the true level
    limited: bool  # True if it is below the requested gain to prevent clipping
    loudness_lufs: float | None = None  # of the mixture at this gain

    @property
    def db(self) -> float:
        """The gain in dB."""
        return 20 * math.log10(self.factor)


def song_gain(
    song_id: str, peak: float, ceiling: float, loudness_lufs: float | None, target_lufs: float | None
) -> Gain:
    """The gain to ``target_lufs`` (None: the true level), reduced if ``peak`` would exceed ``ceiling``.

    ``peak`` is the largest absolute sample of the song and its stems, ``loudness_lufs`` the loudness of the song.

    Raises:
        NoLoudness: a target is given, and the song is too quiet to have a loudness.
    """
    factor = 1.0
    if target_lufs is not None:
        if loudness_lufs is None:
            raise NoLoudness(
                f"{song_id} cannot be normalised: it is always below the gate of BS.1770 (-70 LUFS) and has no "
                "loudness; export it without --normalise"
            )
        factor = 10 ** ((target_lufs - loudness_lufs) / 20)
    limited = factor * peak > ceiling
    if limited:
        factor = ceiling / peak
    reached = None if loudness_lufs is None else loudness_lufs + 20 * math.log10(factor)
    return Gain(factor, limited, reached)
