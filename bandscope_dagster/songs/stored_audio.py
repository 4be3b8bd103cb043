"""The samples of stored blocks. Damage in one block is an error that names the song, the block and the fix."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import MIXTURE
from bandscope_dagster.audio.flac import UndecodableBlock, decode_flac
from bandscope_dagster.storage.tables.damage import DamagedFile


def stored_samples(row: Mapping[str, Any]) -> NDArray[np.float32]:
    """The true amplitudes of a row of an audio table, ``(2, frames)`` float32.

    Raises:
        DamagedFile: the audio cannot be decoded, or is not as long as the row says.
    """
    try:
        samples = decode_flac(row["audio"]["bytes"], row["gain"]) if row["audio"] else None
    except UndecodableBlock:
        samples = None
    if samples is None or samples.shape[1] != row["frames"]:
        song = row["song_id"]
        raise DamagedFile(
            f"{song}: the stored audio of {row.get('stem', MIXTURE)} is damaged in block {row['block']};"
            f" `bandscope run --recompute --songs {song}` makes it again, if the song's upload is there"
        )
    return samples
