"""Memory of one process through batch after batch of songs from seconds to two hours long: it must stay level.

    python -m benchmarks.load [--songs N] [--longest SECONDS] [--workplace DIR]

``bandscope run`` takes N rendered songs through all tables with the embedded models, 64 a run, in one process. Every
batch has one song of four minutes among songs of 2 to 10 s and three of a minute; the fourth batch's is the longest of
all. Twice a second its resident size is noted, and apart from it that of its children, which decode (Linux).

Each row of the table is a batch: from when the last table of the batch before was there to when its own was. The last
line is JSON: the songs and the hours of audio, the median size in the second and in the last batch (in the first, the
models were loaded) in MB and the growth between them, the largest median of a batch over the smallest (without the
first), and the peaks in MB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.pipeline.uploads import UPLOADS
from benchmarks.measuring import write_song

SONGS_PER_RUN = 64
LONG_AT, LONGEST_IN = 30, 3  # the place of the long song in its batch, and the batch with the longest
LONG_S, MEDIUM_S, SHORT_S = 240.0, 60.0, (2.0, 10.0)
LOOK_EVERY_S = 0.5
MB = 1e6


@dataclass(frozen=True, slots=True)
class Sample:
    """What one look at the process saw."""

    done: int  # songs
    process: float  # resident, in MB
    children: float


def seconds(number: int, longest: float) -> float:
    """The length of a song."""
    batch, place = divmod(number, SONGS_PER_RUN)
    if place == LONG_AT:
        return longest if batch == LONGEST_IN else min(LONG_S, longest)
    if place % 20 == 7:
        return min(MEDIUM_S, longest)
    return float(np.random.default_rng(number).uniform(*SHORT_S))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the memory of a process through many songs.")
    parser.add_argument("--songs", type=int, default=500)
    parser.add_argument("--longest", type=float, default=7200.0, help="seconds; default: two hours")
    parser.add_argument("--workplace", type=Path, help="an empty folder for the songs and their tables")
    arguments = parser.parse_args()
    if arguments.songs <= SONGS_PER_RUN:
        parser.error(
            f"--songs: more than the {SONGS_PER_RUN} of one batch, for there is nothing to compare else"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder: Path = arguments.workplace or Path(temporary)
        lengths = [seconds(number, arguments.longest) for number in range(arguments.songs)]
        write_uploads(folder / "store" / UPLOADS, lengths)
        samples = watch(folder, arguments.songs)
    report(samples, lengths)


def write_uploads(folder: Path, lengths: Sequence[float]) -> None:
    """Render songs, in the order in which they are to be taken; WAV, FLAC and MP3 in turn, the long ones FLAC."""
    folder.mkdir(parents=True)
    began = time.time() - len(lengths)
    for number, length in enumerate(lengths):
        ending = "flac" if length >= MEDIUM_S else ("wav", "flac", "mp3")[number % 3]
        path = folder / f"song {number:04}.{ending}"
        write_song(path, number, length)
        os.utime(path, (began + number, began + number))
    print(f"{len(lengths)} songs, {sum(lengths) / 3600:.2f} hours of audio at {SAMPLE_RATE} Hz", flush=True)


def watch(folder: Path, songs: int) -> list[Sample]:
    """Run ``bandscope run`` and look at its memory until it ends."""
    variables = {
        "BANDSCOPE_STORAGE": str(folder / "store"),
        "DAGSTER_HOME": str(folder / "home"),
        "BANDSCOPE_SONGS_PER_RUN": str(SONGS_PER_RUN),
        "BANDSCOPE_DEVICE": "cpu",
    }
    (folder / "home").mkdir()
    samples: list[Sample] = []
    with (folder / "printed.txt").open("wb") as printed:
        command = [str(Path(sys.executable).with_name("bandscope")), "run"]
        running = subprocess.Popen(command, env=os.environ | variables, stdout=printed, stderr=printed)
        process, told = psutil.Process(running.pid), 0
        while running.poll() is None:
            time.sleep(LOOK_EVERY_S)
            done = len(list((folder / "store" / "stem_instrument_tags").glob("*.parquet")))
            try:
                children = sum(child.memory_info().rss for child in process.children(recursive=True))
                samples.append(Sample(done, process.memory_info().rss / MB, children / MB))
            except psutil.NoSuchProcess:  # a child, or all, ended meanwhile
                continue
            if done >= told + SONGS_PER_RUN:
                told = done
                print(f"{done} of {songs} songs: {samples[-1].process:.0f} MB", flush=True)
    if running.returncode != 0 or done < songs:
        raise SystemExit(f"{done} of {songs} songs: {(folder / 'printed.txt').read_text()[-2000:]}")
    return samples


def report(samples: Sequence[Sample], lengths: Sequence[float]) -> None:
    """Print the curve and the line of JSON."""
    songs = len(lengths)
    print(f"{'songs':>12}{'median MB':>12}{'peak MB':>10}{'decoding MB':>13}")
    medians: list[float] = []
    for low in range(0, songs, SONGS_PER_RUN):
        high = min(low + SONGS_PER_RUN, songs)
        seen = [each for each in samples if low <= each.done < high or high == each.done == songs]
        sizes = [each.process for each in seen]
        medians.append(statistics.median(sizes))
        decoding = max(each.children for each in seen)
        print(f"{f'{low} to {high}':>12}{medians[-1]:12.0f}{max(sizes):10.0f}{decoding:13.0f}")
    settled = medians[1:]
    figures = {
        "songs": songs,
        "hours": sum(lengths) / 3600,
        "second_batch_mb": settled[0],
        "last_batch_mb": settled[-1],
        "growth": settled[-1] / settled[0],
        "spread": max(settled) / min(settled),
        "peak_mb": max(each.process for each in samples),
        "peak_decoding_mb": max(each.children for each in samples),
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
