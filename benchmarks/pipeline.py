"""The cost of ``analyze`` beyond its models, and against a serial version.

    python -m benchmarks.pipeline [--songs N] [--seconds S] [--rounds R]

The rendered songs are in a local store. Each round times three things in turn, in one process, on the same audio:

- models: the separator on its segments and the tagger on its windows, all cut beforehand and in memory. This is the
  lower bound for any version that writes the same tables;
- pipeline: ``analyze_batch``, all four tables;
- serial: the same steps one after the other for each song: decode, run the models, encode and store.

Every figure is the median of the rounds, and every ratio the median of the rounds' ratios, because a shared machine has
slow and fast rounds. CPU seconds are of all threads. If the models keep every core busy, as on a CPU, the CPU ratio is
the best possible wall ratio. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from bandscope_dagster.audio.blocks import MIXTURE, SAMPLE_RATE
from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.flac import dequantize, quantize
from bandscope_dagster.orchestration.resources import Models
from bandscope_dagster.pipeline.analyze import analyze_batch
from bandscope_dagster.pipeline.background import WriteBehind
from bandscope_dagster.pipeline.outcomes import SongFailed
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES, SongPlan, SongPlanner, read_song
from bandscope_dagster.pipeline.song_analysis import BatchContext, SongAnalysis
from bandscope_dagster.pipeline.uploads import fetch_upload, list_uploads
from bandscope_dagster.pipeline.validate import check_songs
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.streaming import Separated, StreamingSeparation
from bandscope_dagster.settings import Settings
from bandscope_dagster.tagging.registry import present_from
from bandscope_dagster.tagging.source_tags import SourceTags, with_vocabulary
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from bandscope_dagster.tagging.window_queue import WindowQueue
from benchmarks.measuring import Spent, median_ratio, spent, write_songs

T = TypeVar("T")

Audio = NDArray[np.float32]


@dataclass(slots=True)
class Collected:
    """A replacement of the writer thread that keeps its tasks for later, for the serial version."""

    tasks: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def submit(self, task: Callable[[], None]) -> Future[None]:
        self.tasks.append(task)
        return Future()

    def run(self) -> None:
        """Do all submitted tasks, in order."""
        for task in self.tasks:
            task()
        self.tasks.clear()


class AtOnce(Executor):
    """A replacement of the encoders' threads that does each task at once, in the calling thread."""

    def submit(self, task: Callable[..., T], /, *args: Any, **options: Any) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(task(*args, **options))
        return done


class Bench:
    """A store whose songs have their ``songs`` rows, and the embedded models, loaded."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(storage=str(folder), device="cpu")
        self.store = self.settings.open_store()
        self.models = Models(self.settings)
        self.separator, self.tagger = self.models.separator(), self.models.tagger()
        self.planner = SongPlanner(
            "benchmark",
            self.settings.flac_bits,
            self.separator.identity,
            with_vocabulary(self.tagger.identity),
        )
        uploads = list_uploads(self.store).by_song
        checked = check_songs(
            list(uploads), uploads, self.store, self.settings.limits, self.planner, reuse=False
        )
        self.song_ids = [song.song_id for song in checked if song.error is None]
        if len(self.song_ids) < len(uploads) or not uploads:
            raise SystemExit(f"only {len(self.song_ids)} of {len(uploads)} rendered songs can be analyzed")

    def plans(self) -> Iterator[SongPlan]:
        """The plans of ``analyze``: every table of every song."""
        for song_id in self.song_ids:
            yield self.planner.plan(self.store, read_song(self.store, song_id), ANALYSIS_TABLES, reuse=False)

    def decoded(self, plan: SongPlan) -> list[Audio]:
        """All blocks of a song, each ``(2, frames)``."""
        limits = self.settings.limits
        with fetch_upload(self.store, plan.upload_key, limits.max_bytes) as upload:
            return list(decode(upload.file, limits))

    def pipeline(self) -> None:
        """Run ``analyze_batch`` as the step does."""
        for outcome in analyze_batch(
            self.song_ids, ANALYSIS_TABLES, self.store, self.models, self.settings, "benchmark", reuse=False
        ):
            if isinstance(outcome, SongFailed):
                raise outcome.error

    def serial(self) -> None:
        """Compute the same rows with the same parts, without concurrency except torch's own."""
        for plan in self.plans():
            writes = Collected()
            windows = WindowQueue(self.tagger)
            context = BatchContext(
                store=self.store,
                writer=cast(WriteBehind[None], writes),
                encoders=AtOnce(),
                models_wait=False,
                flac_bits=self.settings.flac_bits,
                stems=self.separator.stems,
                windows=windows,
                vocabulary=load_vocabulary(),
                present_from=present_from(None, self.settings.audible_db),
            )
            song = SongAnalysis(plan, context)
            blocks = self.decoded(plan)
            for block in blocks:
                song.add_mixture(block)
            for piece in separated(StreamingSeparation(self.separator), blocks):
                song.add_separated(piece)
            song.finish()
            windows.flush()
            song.advance()
            writes.run()
            if song.error is not None:
                raise song.error

    def model_inputs(self) -> tuple[list[Audio], list[Audio]]:
        """The inputs of both models for all songs, in batches: segments and windows."""
        segments: list[Audio] = []
        windows: list[Audio] = []
        for plan in self.plans():
            blocks = self.decoded(plan)
            segments += self._segments(np.concatenate(blocks, axis=1))
            sources = {MIXTURE: blocks} | {stem: list[Audio]() for stem in self.separator.stems}
            for piece in separated(StreamingSeparation(self.separator), blocks):
                for stem, samples in zip(self.separator.stems, piece.stems, strict=True):
                    sources[stem].append(dequantize(quantize(samples)))
            for source, parts in sources.items():
                tags = SourceTags(source, self.tagger, SAMPLE_RATE)
                cut = [window for part in parts for window in tags.push(part)] + tags.finish()
                windows += [window.samples for window in cut]
        return batches(segments, self.separator.batch), batches(windows, self.tagger.batch)

    def _segments(self, song: Audio) -> Iterator[Audio]:
        plan = self.separator.plan
        (lead,) = plan.leads
        padded = np.pad(song, ((0, 0), (lead, plan.length)))
        for start in range(0, song.shape[1] + lead, plan.stride):
            yield padded[:, start : start + plan.length]


def separated(streams: StreamingSeparation, blocks: Sequence[Audio]) -> Iterator[Separated]:
    """One song's finished pieces."""
    streams.open("song", Normalisation())
    for block in blocks:
        yield from map(_good, streams.push("song", block))
    yield from map(_good, streams.finish("song"))
    yield from map(_good, streams.flush())


def _good(piece: object) -> Separated:
    if not isinstance(piece, Separated):
        raise RuntimeError(f"a rendered song could not be separated: {piece}")
    return piece


def batches(arrays: Sequence[Audio], size: int) -> list[Audio]:
    """Stacks of ``size`` arrays; the last is padded with silence, as in the pipeline."""
    filler = [np.zeros_like(arrays[0])] * (-len(arrays) % size)
    padded = [*arrays, *filler]
    return [np.stack(padded[start : start + size]) for start in range(0, len(padded), size)]


def measure_time(songs: int, seconds: float, rounds: int) -> dict[str, float]:
    """Print the medians over the rounds as a table; returns them."""
    with tempfile.TemporaryDirectory() as folder:
        write_songs(Path(folder), songs, seconds)
        bench = Bench(Path(folder))
        segments, windows = bench.model_inputs()

        def models() -> None:
            for segment in segments:
                bench.separator.separate(torch.from_numpy(segment))
            for window in windows:
                bench.tagger.tag(window)

        works = {"models": models, "pipeline": bench.pipeline, "serial": bench.serial}
        took: dict[str, list[Spent]] = {name: [] for name in works}
        for number in range(rounds):
            first = number % len(works)  # each is first, second and last in turn
            for name in [*works, *works][first : first + len(works)]:
                took[name].append(spent(works[name]))

    print(f"{songs} songs of {seconds:g} s, {rounds} rounds, {os.cpu_count()} cores; per second of audio:")
    print(f"{'':9}{'wall ms':>9}{'CPU ms':>9}{'times real':>12}{'wall ratio':>12}{'CPU ratio':>11}")
    wall = {name: [one.wall / songs / seconds for one in all_spent] for name, all_spent in took.items()}
    cpu = {name: [one.cpu / songs / seconds for one in all_spent] for name, all_spent in took.items()}
    report: dict[str, float] = {}
    for name in works:
        figures = {
            "wall_s_per_s": statistics.median(wall[name]),
            "cpu_s_per_s": statistics.median(cpu[name]),
            "wall_to_models": median_ratio(wall[name], wall["models"]),
            "cpu_to_models": median_ratio(cpu[name], cpu["models"]),
        }
        wall_s, cpu_s, wall_ratio, cpu_ratio = figures.values()
        print(
            f"{name:9}{1000 * wall_s:9.1f}{1000 * cpu_s:9.1f}{1 / wall_s:12.1f}{wall_ratio:12.3f}{cpu_ratio:11.3f}"
        )
        report |= {f"{name}_{figure}": value for figure, value in figures.items()}
    report["serial_to_pipeline_wall"] = median_ratio(wall["serial"], wall["pipeline"])
    print(f"serial takes {report['serial_to_pipeline_wall']:.3f} times as long as the pipeline")
    return report


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(
        description="Measure the pipeline against its models and a serial version."
    )
    parser.add_argument("--songs", type=int, default=3, metavar="N", help="default: 3")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of each song (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="default: 5")
    arguments = parser.parse_args()
    report = measure_time(arguments.songs, arguments.seconds, arguments.rounds)
    print(json.dumps({name: round(value, 4) for name, value in report.items()}))


if __name__ == "__main__":
    main()
