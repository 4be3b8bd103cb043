"""Peak memory of the pipeline by the length of the song: it must not grow.

    python -m benchmarks.memory [--quick]

Each row is a process of its own that takes one song from upload to stems in a local store, with segments one at a
time, and prints its peak resident size. Two separators:

- htdemucs: HTDemucs of the published architecture with random weights, on songs short enough to compute;
- null: the same segments and stems without a network. A song of two hours is 1,231 segments, which would keep a
  network busy for an hour; whatever grows with a song's length, grows here too, and stands out more.

Needs Linux. The last line is JSON: the peak at 120 minutes over that at 3 (null), and the peak with HTDemucs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.separation.demucs import OVERLAP, triangular_plan
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import Separator
from benchmarks.measuring import MIB, peak_mib, write_songs
from benchmarks.random_demucs import ARCHITECTURE, SEGMENT, random_separator, write_weights
from benchmarks.separation import ROOT, pipeline


class Null:
    """Cuts and adds up as HTDemucs does, and gives the mixture to the first stem."""

    identity = ModelIdentity("null", "0" * 64)
    stems = tuple(ARCHITECTURE["sources"])
    plan = triangular_plan(int(44_100 * SEGMENT), OVERLAP)
    shorter_plans = ()
    batch = 1
    device = "cpu"
    normalised = True

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        stems = segments.new_zeros((len(segments), len(self.stems), *segments.shape[1:]))
        stems[:, 0] = segments
        return stems


def load(separator: str, folder: Path) -> Separator:
    """One of the two, on the CPU."""
    return Null() if separator == "null" else random_separator(folder, "cpu", SeparationOptions())


def measure(separator: str, minutes: float) -> float:
    """The peak, in MiB, of a process that separates one song of this length."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder)
        write_songs(folder, 1, 60 * minutes, endings=["flac"])
        module = [sys.executable, "-m", "benchmarks.memory"]
        command = [*module, "--separator", separator, "--process", name]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout
    print(f"{separator:10}{minutes:5g} min{float(answer):10.0f} MiB", flush=True)
    return float(answer)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description="Measure the pipeline's peak memory by the length of a song."
    )
    parser.add_argument("--quick", action="store_true", help="HTDemucs on one minute: within 5 minutes")
    parser.add_argument("--separator", choices=["null", "htdemucs"], help=argparse.SUPPRESS)
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process is not None:
        pipeline(arguments.process, load(arguments.separator, arguments.process), songs=1)
        print(peak_mib())
        return
    lengths = (3, 120) if arguments.quick else (3, 30, 120)
    peaks = {minutes: measure("null", minutes) for minutes in lengths}
    with_network = [measure("htdemucs", minutes) for minutes in ((1,) if arguments.quick else (1, 3, 10))]
    report = {"rss_ratio_120_over_3": peaks[120] / peaks[3], "peak_mb": max(with_network) * MIB / 1e6}
    print(json.dumps({name: round(value, 4) for name, value in report.items()}))


if __name__ == "__main__":
    main()
