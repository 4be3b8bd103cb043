"""One gain for all files of a song, so that its stems still add up to the mixture."""

import math
from dataclasses import dataclass

from bandscope_dagster.errors import BandscopeError


class NoLoudness(BandscopeError):
    """The song has no loudness to start from; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Gain:
    """What every sample of a song is multiplied with."""

    factor: float  # 1.0 is the true level
    limited: bool  # whether it is less than was asked for, so that nothing clips

    @property
    def db(self) -> float:
        """The same in dB."""
        return 20 * math.log10(self.factor)


def song_gain(
    song_id: str, peak: float, ceiling: float, loudness_lufs: float | None, target_lufs: float | None
) -> Gain:
    """The gain to ``target_lufs`` (None: the true level), lowered where ``peak`` would pass ``ceiling``.

    ``peak`` is the largest absolute sample of the song and of its stems, ``loudness_lufs`` the song's own.

    Raises:
        NoLoudness: a target is given, and the song is too quiet to have a loudness.
    """
    factor = 1.0
    if target_lufs is not None:
        if loudness_lufs is None:
            raise NoLoudness(
                f"{song_id} cannot be normalised: it never passes the gate of BS.1770 (-70 LUFS), so it has no "
                "loudness; export it without --normalise"
            )
        factor = 10 ** ((target_lufs - loudness_lufs) / 20)
    if factor * peak > ceiling:
        return Gain(ceiling / peak, limited=True)
    return Gain(factor, limited=False)
