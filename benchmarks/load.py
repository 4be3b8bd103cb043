"""Memory of one process over many batches, with songs from seconds to two hours long: it must not grow.

    python -m benchmarks.load [--songs N] [--longest SECONDS] [--workplace DIR]

``bandscope run`` computes all tables of N rendered songs with the embedded models, 64 songs per run, in one process.
Each batch has one song of four minutes, three of one minute, and else songs of 2 to 10 s; the long song of the fourth
batch has SECONDS. Twice a second, the benchmark records the resident size of the process and, separately, that of its
children, which decode (Linux).

Each row of the table is a batch: from the last table of the batch before to its own last table. The last line is JSON:
the songs and the hours of audio; the median size in the second and in the last batch in MB (the models load in the
first) and the growth between them; the largest median of a batch over the smallest, without the first; and the peaks
in MB.
"""

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
    """One measurement of the process."""

    done: int  # songs
    process: float  # resident, in MB
    children: float


def seconds(number: int, longest: float) -> float:
    """The length of a song in seconds."""
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
            f"--songs must exceed the {SONGS_PER_RUN} songs of one batch: the benchmark compares batches"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder: Path = arguments.workplace or Path(temporary)
        lengths = [seconds(number, arguments.longest) for number in range(arguments.songs)]
        write_uploads(folder / "store" / UPLOADS, lengths)
        samples = watch(folder, arguments.songs)
    report(samples, lengths)


def write_uploads(folder: Path, lengths: Sequence[float]) -> None:
    """Render songs in the order of processing: WAV, FLAC and MP3 in turn, the long ones in FLAC."""
    folder.mkdir(parents=True)
    began = time.time() - len(lengths)
    for number, length in enumerate(lengths):
        ending = "flac" if length >= MEDIUM_S else ("wav", "flac", "mp3")[number % 3]
        path = folder / f"song {number:04}.{ending}"
        write_song(path, number, length)
        os.utime(path, (began + number, began + number))
    print(f"{len(lengths)} songs, {sum(lengths) / 3600:.2f} hours of audio at {SAMPLE_RATE} Hz", flush=True)


def watch(folder: Path, songs: int) -> list[Sample]:
    """Run ``bandscope run`` and measure its memory until it ends."""
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
        process, reported = psutil.Process(running.pid), 0
        while running.poll() is None:
            time.sleep(LOOK_EVERY_S)
            done = len(list((folder / "store" / "stem_instrument_tags").glob("*.parquet")))
            try:
                children = sum(child.memory_info().rss for child in process.children(recursive=True))
                samples.append(Sample(done, process.memory_info().rss / MB, children / MB))
            except psutil.NoSuchProcess:  # a child or the process has ended
                continue
            if done >= reported + SONGS_PER_RUN:
                reported = done
                print(f"{done} of {songs} songs: {samples[-1].process:.0f} MB", flush=True)
    if running.returncode != 0 or done < songs:
        raise SystemExit(f"{done} of {songs} songs: {(folder / 'printed.txt').read_text()[-2000:]}")
    return samples


def report(samples: Sequence[Sample], lengths: Sequence[float]) -> None:
    """Print the table and the line of JSON."""
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
