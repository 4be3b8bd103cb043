"""Peak memory of the pipeline by the length of the song: it must not grow with the length.

    python -m benchmarks.memory [--quick]

Each row is a new process that processes one song from upload to stems in a local store, one segment at a time, and
prints its peak resident size. The separator is HTDemucs with the published architecture and random weights. A song of
two hours has 1,231 segments, an hour of work on two cores. So in the rows called "sampled" only the first twelve
segments, in which the allocator gets the memory that the network needs, and then one in a hundred go through the
network; the others are returned as the first stem. Everything around the network, which is what could grow, does all of
its work. The allocator has the settings of every program of Bandscope.

It needs Linux. The last line is JSON: the peak at 120 minutes over that at 3 (both sampled), and the peak of all rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bandscope_dagster.allocator import share_freed_memory, without_thread_caches
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import Separator
from benchmarks.measuring import MIB, ROOT, peak_mib, write_songs
from benchmarks.random_demucs import random_separator, write_weights
from benchmarks.separation import pipeline

ALL_UNTIL, ONE_IN = 12, 100  # segments


class Sampled:
    """A separator that runs its network on the first segments, and then on one in a hundred."""

    def __init__(self, separator: Separator) -> None:
        self._separator = separator
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._separator, name)

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        self._calls += 1
        if self._calls <= ALL_UNTIL or self._calls % ONE_IN == 0:
            return self._separator.separate(segments)
        stems = segments.new_zeros((len(segments), len(self._separator.stems), *segments.shape[1:]))
        stems[:, 0] = segments
        return stems


def load(kind: str, folder: Path) -> Separator:
    """The separator on the CPU."""
    separator = random_separator(folder, "cpu", SeparationOptions())
    return Sampled(separator) if kind == "sampled" else separator


def measure(kind: str, minutes: float) -> float:
    """The peak in MiB of a process that separates one song of this length."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder)
        write_songs(folder, 1, 60 * minutes, endings=["flac"])
        module = [sys.executable, "-m", "benchmarks.memory"]
        command = [*module, "--kind", kind, "--process", name]
        environment = os.environ | without_thread_caches()
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        answer = done.stdout
    print(f"{kind:10}{minutes:5g} min{float(answer):10.0f} MiB", flush=True)
    return float(answer)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="Measure the pipeline's peak memory by the length of a song."
    )
    parser.add_argument("--quick", action="store_true", help="fewer lengths: within 5 minutes")
    parser.add_argument("--kind", choices=["sampled", "whole"], help=argparse.SUPPRESS)
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process is not None:
        share_freed_memory()
        pipeline(arguments.process, partial(load, arguments.kind, arguments.process), songs=1)
        print(peak_mib())
        return
    lengths = (3, 120) if arguments.quick else (3, 30, 120)
    sampled = {minutes: measure("sampled", minutes) for minutes in lengths}
    whole = [measure("whole", minutes) for minutes in ((1,) if arguments.quick else (1, 3, 10))]
    peak_mb = max(*sampled.values(), *whole) * MIB / 1e6
    report = {"rss_ratio_120_over_3": sampled[120] / sampled[3], "peak_mb": peak_mb}
    print(json.dumps({name: round(value, 4) for name, value in report.items()}))


if __name__ == "__main__":
    main()
