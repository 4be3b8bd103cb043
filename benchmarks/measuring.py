"""Shared parts of the benchmarks: time and memory of a process, and rendered songs."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.pipeline.uploads import UPLOADS
from scripts.demo_songs import render

MIB = 1024 * 1024
ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests" / "support"))  # its modules import each other by their names


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds that a piece of work took."""

    wall: float
    cpu: float  # of all threads


def spent(work: Callable[[], object]) -> Spent:
    """The time that ``work`` takes in this process."""
    cpu, wall = os.times(), time.perf_counter()
    work()
    ended = os.times()
    return Spent(time.perf_counter() - wall, ended.user + ended.system - cpu.user - cpu.system)


def spent_by(command: Sequence[str]) -> Spent:
    """The time of a whole process, from start to end."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest value as text."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of the ratios, round by round."""
    return statistics.median(ratios(these, those))


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [a / b for a, b in zip(these, those, strict=True)]


def peak_mib() -> float:
    """The largest resident size of this process so far (Linux)."""
    # Not getrusage: its ru_maxrss starts at the size of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MIB


def write_song(path: Path, number: int, seconds: float) -> None:
    """Render song ``number`` to a file, repeated to ``seconds``, in the format of the name's ending."""
    _, stems = render(number)
    mixture = np.sum(list(stems.values()), axis=0)
    subtype = "MPEG_LAYER_III" if path.suffix == ".mp3" else "PCM_16"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, subtype) as file:
        left = round(seconds * SAMPLE_RATE)
        while left > 0:
            file.write(mixture[:, :left].T)
            left -= mixture.shape[1]


def write_songs(
    store: Path, songs: int, seconds: float, endings: Sequence[str] = ("wav", "flac", "mp3")
) -> None:
    """Write rendered songs to a store's uploads, each repeated to ``seconds``, in the formats in turn."""
    folder = store / UPLOADS
    folder.mkdir(parents=True)
    for number in range(songs):
        write_song(folder / f"song {number}.{endings[number % len(endings)]}", number, seconds)
