"""Mix any number of channels down to two."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MINUS_3_DB = 0.7071  # ITU-R BS.775-4, table 2, with its four digits

# FFmpeg's channel names → weight in (left, right). ITU-R BS.775-4, table 2 (3/2 → 2/0). A single surround channel
# goes to both sides at −6 dB (ATSC A/52, 7.8.2). The low-frequency effects channel (LFE) is left out.
_SHARES: dict[str, tuple[float, float]] = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_MINUS_3_DB, _MINUS_3_DB),
    "LFE": (0.0, 0.0),
    "BL": (_MINUS_3_DB, 0.0),
    "BR": (0.0, _MINUS_3_DB),
    "SL": (_MINUS_3_DB, 0.0),
    "SR": (0.0, _MINUS_3_DB),
    "BC": (0.5, 0.5),
}


MICROSOFT_ORDER: dict[int, tuple[str, ...]] = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BL", "BR", "BC"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""Channels of a WAV file that names none, by their number: Microsoft's usual sets of speakers (ksmedia.h: surround is
quad, 5.0, 5.1, 5.1 with back centre, 7.1), in the order of the bits of a channel mask."""


def stereo_weights(channels: Sequence[str]) -> NDArray[np.float32]:
    """The matrix ``(2, channels)`` that mixes the named channels to left and right.

    One channel goes to both sides unchanged. Two are left and right, whatever their names. More are mixed with the
    weights of ITU-R BS.775; if a name is not in it, even channels go left and odd channels right, as in a row of
    stereo pairs. One factor for both sides then scales the weights so that those of a side add up to 1 at most: a mix
    of samples within ±1 stays within ±1.
    """
    if len(channels) == 1:
        return np.ones((2, 1), np.float32)
    if len(channels) == 2:
        return np.eye(2, dtype=np.float32)
    shares = [_SHARES.get(name) for name in channels]
    if None in shares:
        shares = [(1.0, 0.0) if index % 2 == 0 else (0.0, 1.0) for index in range(len(channels))]
    weights = np.array(shares).T
    return (weights / weights.sum(axis=1).max()).astype(np.float32)
