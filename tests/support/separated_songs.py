"""Songs through ``StreamingSeparation``: one alone, or several whose blocks come in any order."""

import random
from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.streaming import Results, Separated, StreamingSeparation

Audio = NDArray[np.float32]


def separate(
    separator: Separator, mixture: Audio, normalisation: Normalisation | None = None, block: int = 100_000
) -> Audio:
    """The stems of one song, ``(stems, 2, frames)``, in blocks of ``block`` frames."""
    streaming = StreamingSeparation(separator)
    streaming.open("song", normalisation or Normalisation())
    results: Results = []
    for start in range(0, mixture.shape[1], block):
        results += streaming.push("song", mixture[:, start : start + block])
    return stems_of([*results, *streaming.finish("song"), *streaming.flush()])["song"]


def separate_mixed(
    separator: Separator, songs: Mapping[str, Audio], block: int, seed: int
) -> dict[str, Audio]:
    """Song → its stems, if the blocks of all songs come in a random order."""
    streaming = StreamingSeparation(separator)
    results: Results = []
    order = random.Random(seed)
    left = {name: 0 for name in songs}
    for name in songs:
        streaming.open(name, Normalisation())
    while left:
        name = order.choice(list(left))
        results += streaming.push(name, songs[name][:, left[name] : left[name] + block])
        left[name] += block
        if left[name] >= songs[name].shape[1]:
            results += streaming.finish(name)
            del left[name]
    return stems_of([*results, *streaming.flush()])


def stems_of(results: Results) -> dict[str, Audio]:
    """Song → its stems, of the pieces of all songs; a song that failed is an error."""
    pieces: defaultdict[str, list[Audio]] = defaultdict(list)
    for result in results:
        assert isinstance(result, Separated), result
        pieces[result.song].append(result.stems)
    return {name: np.concatenate(parts, axis=-1) for name, parts in pieces.items()}
