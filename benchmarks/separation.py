"""Separation with HTDemucs against demucs itself: the model, the pipeline and the whole process.

    python -m benchmarks.separation [--quick] [--device auto]
    python -m benchmarks.separation --networks [NAME ...]   # SCNet and the RoFormers: benchmarks/separation_networks.py

The networks have the published architecture and random weights, which cost the same as the published ones. Each round
runs in turn:

- apply_model: ``demucs.apply.apply_model`` (split, overlap 0.25, no shifts) on one song in memory, in a process without
  Bandscope;
- streaming: our ``StreamingSeparation`` of the same song, in blocks of 10 s, in another process;
- model: our separator on all segments of three songs, cut beforehand and in memory;
- pipeline: the same three songs from upload to stems in a local store: ingest, check, decode, separate, encode, write;
- process: the pipeline as a whole process, from start to end, against ``python -m demucs`` with its defaults on the
  same files and weights.

Every figure is the median of the rounds with the lowest and the highest; every ratio is computed round by round. CPU
seconds are of all threads. On a CUDA device, a table over batch sizes and precisions follows (see
``benchmarks/separation_cuda.py``). The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from bandscope_dagster.allocator import share_freed_memory
from bandscope_dagster.audio.blocks import BLOCK_FRAMES
from bandscope_dagster.cli.ingest import find_files, ingest
from bandscope_dagster.device import resolve_device
from bandscope_dagster.pipeline.analyze import analyze_batch
from bandscope_dagster.pipeline.outcomes import SongFailed
from bandscope_dagster.pipeline.plan import SongPlanner
from bandscope_dagster.pipeline.uploads import UPLOADS, list_uploads
from bandscope_dagster.pipeline.validate import check_songs
from bandscope_dagster.separation.ensemble import AnySeparator
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.streaming import Results, Separated, StreamingSeparation
from bandscope_dagster.settings import Settings
from bandscope_dagster.tagging.protocol import Tagger
from benchmarks.measuring import Spent, ratios, spent, spent_by, spread, write_songs
from benchmarks.random_demucs import random_network, random_separator, write_weights

Audio = NDArray[np.float32]
Result = TypeVar("Result")
SONGS = 3


def apply_model_tasks(folder: Path, device: str) -> dict[str, Callable[[], object]]:
    """The tasks of demucs, without our settings of torch."""
    from demucs.apply import apply_model

    network = random_network()
    mixture = torch.from_numpy(np.load(folder / "song.npy"))[None]

    def separate() -> torch.Tensor:
        return apply_model(network, mixture, shifts=0, split=True, overlap=0.25, device=device)[0]

    return {"apply_model": separate, "save": lambda: np.save(folder / "apply_model.npy", separate().numpy())}


def bandscope_tasks(folder: Path, device: str) -> dict[str, Callable[[], object]]:
    """Our tasks: the streaming separation, the model alone, and the pipeline."""
    separator = random_separator(folder, device, SeparationOptions())
    song: Audio = np.load(folder / "song.npy")
    batches = [batch for mixture in read_songs(folder) for batch in cut(mixture, separator)]

    def model() -> None:
        for batch in batches:
            output = separator.separate(batch.to(device))
        if device != "cpu":
            output.cpu()

    return {
        "streaming": lambda: stream(separator, song),
        "save": lambda: np.save(folder / "bandscope.npy", stream(separator, song)),
        "model": model,
        "pipeline": lambda: pipeline(folder, lambda: separator),
    }


def stream(separator: Separator, song: Audio) -> Audio:
    """All stems of one song, ``(stems, 2, frames)``."""
    streaming = StreamingSeparation(separator)
    streaming.open("song", Normalisation())
    results: Results = []
    for start in range(0, song.shape[1], BLOCK_FRAMES):
        results += streaming.push("song", song[:, start : start + BLOCK_FRAMES])
    results += [*streaming.finish("song"), *streaming.flush()]
    return np.concatenate([result.stems for result in results if isinstance(result, Separated)], axis=-1)


def read_songs(folder: Path) -> list[Audio]:
    """The uploads, each ``(2, frames)``."""
    paths = sorted((folder / UPLOADS).iterdir())
    return [soundfile.read(path, dtype="float32", always_2d=True)[0].T.copy() for path in paths]


def cut(mixture: Audio, separator: Separator) -> list[torch.Tensor]:
    """The segments of one song, as many as in the pipeline, in batches."""
    plan = separator.plan
    padded = torch.from_numpy(np.pad(mixture, ((0, 0), (0, plan.length))))
    segments = [padded[:, start : start + plan.length] for start in range(0, mixture.shape[1], plan.stride)]
    return list(torch.stack(segments).split(separator.batch))


class OneModel:
    """Models for the pipeline: this separator, and no tagger."""

    def __init__(self, load: Callable[[], AnySeparator]) -> None:
        self.separator = load

    def tagger(self, stopped: Callable[[], bool]) -> Tagger:
        raise NotImplementedError("this benchmark does not tag")


def pipeline(folder: Path, load: Callable[[], Separator], songs: int = SONGS) -> None:
    """Process ``songs`` songs from their files to their stems in a new store, with the separator from ``load``."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        settings = Settings(storage=place)
        store = settings.open_store()
        for file in find_files([folder / UPLOADS], None):
            ingest(store, file, replace=False)
        uploads = list_uploads(store).by_song
        planner = SongPlanner("benchmark", settings.flac_bits)
        rows = list(check_songs(list(uploads), uploads, store, settings.limits, planner, reuse=False))
        assert len(rows) == songs and all(row.error is None for row in rows), rows
        tables = ["decoded_waveforms", "stems"]
        outcomes = analyze_batch(
            list(uploads), tables, store, OneModel(load), settings, "benchmark", reuse=False
        )
        for outcome in outcomes:
            if isinstance(outcome, SongFailed):
                raise outcome.error


TASKS = {"demucs": apply_model_tasks, "bandscope": bandscope_tasks}


def work(name: str, folder: Path, device: str, connection: Connection) -> None:
    """Run in a process: do each received task in a new thread, and send the time that it took.

    Torch's worker threads end with their calling thread; those of an earlier task would slow down the next task.
    """
    if name == "bandscope":
        share_freed_memory()
    tasks = in_thread(partial(TASKS[name], folder, device))
    while (task := connection.recv()) is not None:
        connection.send(spent(partial(in_thread, tasks[task])))


def in_thread(task: Callable[[], Result]) -> Result:
    """The result of ``task`` from a thread that has ended."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(task).result()


class Worker:
    """A separate process, so that the settings of one side do not affect the other."""

    def __init__(self, name: str, folder: Path, device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=work, args=(name, folder, device, other), daemon=True)
        self._process.start()
        other.close()  # so that the end of the worker is noticed

    def run(self, task: str) -> Spent:
        self._connection.send(task)
        return self._connection.recv()

    def stop(self) -> None:
        self._connection.send(None)
        self._process.join()


def compare(folder: Path, device: str, rounds: int) -> dict[str, list[Spent]]:
    """The time of each task, round by round; progress goes to stderr."""
    workers = {name: Worker(name, folder, device) for name in TASKS}
    python = [sys.executable, "-m"]
    uploads = [str(path) for path in sorted((folder / UPLOADS).iterdir())]
    # demucs's --segment takes whole seconds only; its default is the 7.8 s of training, as ours.
    demucs = ["demucs", "-n", "random", "--repo", str(folder), "-o", str(folder / "out"), "-d", device]
    ours = ["benchmarks.separation", "--process", str(folder), "--device", device]
    tasks: dict[str, Callable[[], Spent]] = {
        "apply_model": partial(workers["demucs"].run, "apply_model"),
        "streaming": partial(workers["bandscope"].run, "streaming"),
        "model": partial(workers["bandscope"].run, "model"),
        "pipeline": partial(workers["bandscope"].run, "pipeline"),
        "demucs process": partial(spent_by, [*python, *demucs, *uploads]),
        "our process": partial(spent_by, [*python, *ours]),
    }
    for worker in workers.values():
        worker.run("save")  # also warms up
    took: dict[str, list[Spent]] = {name: [] for name in tasks}
    for number in range(rounds):
        for name, task in tasks.items():
            took[name].append(task())
            print(f"  round {number + 1} of {rounds}: {name} {took[name][-1].wall:.1f} s", file=sys.stderr)
    for worker in workers.values():
        worker.stop()
    return took


def report(took: dict[str, list[Spent]], seconds: float) -> dict[str, float]:
    """Print the tables; returns the ratios."""
    print(f"{'':16}{'wall s':>26}{'CPU s':>28}{'times real':>13}")
    for name, rounds in took.items():
        wall, cpu = ([getattr(one, kind) for one in rounds] for kind in ("wall", "cpu"))
        audio = seconds if name in ("apply_model", "streaming") else SONGS * seconds
        real = audio / statistics.median(wall)
        print(f"{name:16}{spread(wall):>26}{spread(cpu):>28}{real:13.2f}")

    def compared(ours: str, theirs: str, kind: str) -> list[float]:
        return ratios(*([getattr(one, kind) for one in took[name]] for name in (ours, theirs)))

    found = {
        "cpu_ratio_vs_apply_model": compared("streaming", "apply_model", "cpu"),
        "wall_ratio_vs_apply_model": compared("streaming", "apply_model", "wall"),
        "pipeline_over_model": compared("pipeline", "model", "wall"),
        "wall_ratio_vs_cli": compared("our process", "demucs process", "wall"),
        "cpu_ratio_vs_cli": compared("our process", "demucs process", "cpu"),
    }
    print()
    for name, values in found.items():
        print(f"{name:27}{spread(values)}")
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure our separation with HTDemucs against demucs.")
    parser.add_argument("--quick", action="store_true", help="songs of 8 s, two rounds: within 5 minutes")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each song (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--device", default="auto", help="as BANDSCOPE_DEVICE (default: auto)")
    parser.add_argument("--networks", nargs="*", help="SCNet and the RoFormers instead: these, or all")
    parser.add_argument("--threads", type=int, help="with --networks: of torch (default: as many as cores)")
    parser.add_argument("--chunk", type=float, help="with --networks: seconds (default: as published)")
    parser.add_argument("--song", type=float, help="with --networks: only time a song of so many seconds")
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    if arguments.process is not None:
        share_freed_memory()
        pipeline(arguments.process, lambda: random_separator(arguments.process, device, SeparationOptions()))
        return
    if arguments.networks is not None:
        from benchmarks.separation_networks import measure_networks, measure_song

        rounds = 1 if arguments.quick else arguments.rounds
        threads = arguments.threads or os.cpu_count() or 1
        if arguments.song is not None:
            measure_song(arguments.networks, device, arguments.song, threads)
            return
        measure_networks(arguments.networks, device, rounds, threads, arguments.chunk)
        return
    seconds, rounds = (8.0, 2) if arguments.quick else (arguments.seconds, arguments.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder)
        write_songs(folder, SONGS, seconds, endings=["wav"])
        np.save(folder / "song.npy", read_songs(folder)[0])
        print(f"{SONGS} songs of {seconds:g} s, {rounds} rounds, {describe(device)}")
        ratios_found = report(compare(folder, device, rounds), seconds)
        stems = [np.load(folder / f"{name}.npy") for name in ("apply_model", "bandscope")]
        error = float(np.abs(stems[0] - stems[1]).max())
        level = float(np.sqrt(np.mean(stems[0] ** 2)))
        print(f"{'max_abs_error':27}{error:.2g} (the stems have an RMS of {level:.2g})")
        if device.startswith("cuda"):
            from benchmarks.separation_cuda import measure_cuda

            measure_cuda(folder, device, stream)
        else:
            print("Without a CUDA device there is no table over batch sizes and precisions.")
    print(
        json.dumps({name: round(value, 4) for name, value in ratios_found.items()} | {"max_abs_error": error})
    )


def describe(device: str) -> str:
    """A description of the machine."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
