"""The cage's cost: songs decoded in separate processes, against the same songs decoded in this process.

    python -m benchmarks.decoding [--seconds S] [--songs N] [--rounds N]

N songs of S seconds, WAV, FLAC and MP3 in turn, are decoded both ways in turn. First as the ``songs`` step does it: one
song per core at a time, with the loudness and levels of each block measured. Then one song after the other, without
using the blocks. The last line is JSON: the median over the rounds of the time with the cage over the time without it.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.audio.cage.caged_song import caged
from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.levels import SongMeter
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.pipeline.uploads import UPLOADS
from benchmarks.measuring import median_ratio, spent, write_songs

LIMITS = Limits(max_bytes=2**32)

Blocks = Iterator[NDArray[np.float32]]
Use = Callable[[Blocks], None]


def in_process(path: Path) -> Blocks:
    """The song's blocks, decoded in this process."""
    with path.open("rb") as file:
        yield from decode(file, LIMITS)


def in_cage(path: Path) -> Blocks:
    """The song's blocks, decoded in a separate process."""
    with path.open("rb") as file, caged(file, LIMITS) as song:
        yield from song.blocks()


def measured(blocks: Blocks) -> None:
    """Measure the blocks as the ``songs`` step does."""
    measure = SongMeter()
    for block in blocks:
        measure.push(block)
    measure.finish()


def thrown_away(blocks: Blocks) -> None:
    """Ignore the blocks."""
    for _ in blocks:
        pass


def seconds_for(paths: Sequence[Path], decoded: Callable[[Path], Blocks], use: Use, threads: int) -> float:
    """The wall time for all songs, ``threads`` of them at once, in seconds."""

    def one(path: Path) -> None:
        use(decoded(path))

    def every() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, paths))

    return spent(every).wall


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description="Measure the cost of decoding in separate processes.")
    parser.add_argument("--seconds", type=float, default=240.0, metavar="S", help="default: 240")
    parser.add_argument("--songs", type=int, default=12, metavar="N", help="default: 12")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    arguments = parser.parse_args()
    uses: dict[str, tuple[Use, int]] = {
        "songs_step": (measured, os.cpu_count() or 1),
        "decoding_alone": (thrown_away, 1),
    }
    report: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_songs(Path(folder), arguments.songs, arguments.seconds)
        paths = sorted((Path(folder) / UPLOADS).iterdir())
        thrown_away(in_cage(paths[0]))  # starts the server, once per process
        print(f"seconds per song of {arguments.seconds:g} s{'in process':>14}{'in the cage':>14}{'ratio':>8}")
        for use, (take, threads) in uses.items():
            seconds: dict[str, list[float]] = {"in process": [], "in the cage": []}
            for _ in range(arguments.rounds):
                for way, decoded in (("in process", in_process), ("in the cage", in_cage)):
                    seconds[way].append(seconds_for(paths, decoded, take, threads))
            ratio = median_ratio(seconds["in the cage"], seconds["in process"])
            means = [sum(times) / len(times) / len(paths) for times in seconds.values()]
            print(f"{use:25}{means[0]:14.3f}{means[1]:14.3f}{ratio:8.3f}")
            report[f"{use}_cage_over_process"] = round(ratio, 3)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
