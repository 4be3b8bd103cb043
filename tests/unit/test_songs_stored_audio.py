"""The samples of a stored block, or an error that says which block of which song is damaged."""

import numpy as np
import pytest

from bandscope_dagster.audio.flac import encode, quantize
from bandscope_dagster.songs.stored_audio import stored_samples
from bandscope_dagster.storage.tables.damage import DamagedFile

BLOCK = np.random.default_rng(1).uniform(-0.5, 0.5, (2, 3000)).astype(np.float32)
DATA = encode(quantize(BLOCK))


def row(data: bytes, frames: int = 3000) -> dict[str, object]:
    return {
        "song_id": "one",
        "block": 4,
        "stem": "drums",
        "audio": {"bytes": data},
        "gain": 1.0,
        "frames": frames,
    }


def test_the_samples_are_those_of_the_block() -> None:
    assert np.abs(stored_samples(row(DATA)) - BLOCK).max() < 2**-15


@pytest.mark.parametrize(
    "damaged",
    [row(DATA[: len(DATA) // 2]), row(b""), row(DATA, frames=3001), row(DATA) | {"audio": None}],
    ids=["cut", "empty", "another length", "no audio"],
)
def test_damage_is_named_with_the_command_that_fixes_it(damaged: dict[str, object]) -> None:
    with pytest.raises(
        DamagedFile, match=r"^one: the stored audio of drums is damaged in block 4;"
    ) as caught:
        stored_samples(damaged)
    assert "`bandscope run --recompute --songs one`" in str(caught.value)
