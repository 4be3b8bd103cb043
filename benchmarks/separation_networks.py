"""SCNet and the RoFormers against pymss-core: one chunk of each published network, and memory by the length of a song.

    python -m benchmarks.separation --networks [NAME ...] [--quick] [--rounds 3] [--threads N] [--chunk S]
    python -m benchmarks.separation --networks [NAME ...] --song S [--threads N]

The networks have the published architecture and the same random weights, which cost the same as the published ones. One
chunk goes through our network and through pymss-core's in turn, each in a process of its own. Every ratio is computed
round by round; on a busy machine, one thread gives ratios that vary less. Peak memory is that of the process with one
network and one chunk, and of the making of its random weights. ``--chunk`` takes shorter chunks than the published.

The memory of the chunks does not depend on the network. So it is measured with the plan of each model and a network
that returns its input for every stem, on songs of 3 and of 60 minutes.

``--song`` streams one song of so many seconds through each of our networks instead: its time and peak memory.
"""

import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from bandscope_dagster.allocator import share_freed_memory
from bandscope_dagster.audio.blocks import BLOCK_FRAMES, SAMPLE_RATE
from bandscope_dagster.models.inventory import find_model, load_inventory
from bandscope_dagster.models.networks import Network
from bandscope_dagster.separation.chunked import Chunked, build_module
from bandscope_dagster.separation.normalisation import Normalisation
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import Separator
from bandscope_dagster.separation.streaming import StreamingSeparation
from benchmarks.measuring import Spent, peak_mib, spent, spread

MINUTES = (3, 60)


def names() -> list[str]:
    """The models of which we have the network."""
    return [model.name for model in load_inventory().values() if model.network is not None]


def network_of(name: str, seconds: float | None = None) -> Network:
    """The network of a model, with chunks of another length if ``seconds`` is given."""
    network = find_model(name).network
    assert network is not None, name
    if seconds is None:
        return network
    frames = round(seconds * SAMPLE_RATE / network.hop) * network.hop
    return replace(network, chunks=replace(network.chunks, frames=frames))


def chunk_of(network: Network, device: str) -> torch.Tensor:
    """Noise of one chunk, ``(1, 2, frames)``."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn((1, 2, network.chunks.frames), generator=generator).to(device)


@contextmanager
def cheap_linear_layers() -> Iterator[None]:
    """Leave linear layers without values while the block builds a network; torch draws them twice as slowly."""
    reset = torch.nn.Linear.reset_parameters
    torch.nn.Linear.reset_parameters = lambda self: None
    try:
        yield
    finally:
        torch.nn.Linear.reset_parameters = reset


def pymss_with_values(network: Network) -> torch.nn.Module:
    """pymss-core's network with random weights, the same in every process."""
    from tiny_chunked import pymss_network

    torch.manual_seed(0)
    with cheap_linear_layers():
        module = pymss_network(network)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.data.normal_(0, layer.in_features**-0.5)
            if layer.bias is not None:
                layer.bias.data.zero_()
    return module


def our_separator(network: Network, name: str, device: str) -> Chunked:
    """Our separator with random weights; all settings of torch as in the product."""
    share_freed_memory()
    with cheap_linear_layers():
        module = build_module(network)
    module.load_state_dict(pymss_with_values(network).state_dict(), assign=True)
    return Chunked(name, "0" * 64, network, module, device, SeparationOptions())


def our_task(network: Network, name: str, device: str) -> Callable[[], torch.Tensor]:
    """Our separator of one chunk."""
    separator = our_separator(network, name, device)
    chunk = chunk_of(network, device)
    return lambda: separator.separate(chunk)[:, : len(network.estimated)]


def their_task(network: Network, name: str, device: str) -> Callable[[], torch.Tensor]:
    """The same by pymss-core, without our settings of torch."""
    module = pymss_with_values(network).to(device)
    chunk = chunk_of(network, device)

    def separate() -> torch.Tensor:
        with torch.inference_mode():
            output = module(chunk)
        return output if output.ndim == 4 else output[:, None]

    return separate


TASKS = {"ours": our_task, "pymss-core": their_task}


def timed(task: Callable[[], torch.Tensor]) -> tuple[Spent, torch.Tensor]:
    """The time of a task, and its result in host memory."""
    outputs: list[torch.Tensor] = []
    took = spent(lambda: outputs.append(task().cpu()))
    return took, outputs[0]


def work(side: str, network: Network, name: str, device: str, threads: int, connection: Connection) -> None:
    """Run in a process: separate a chunk whenever asked, and send time, peak memory and a part of the output."""
    task = TASKS[side](network, name, device)
    torch.set_num_threads(threads)  # tests/support sets one
    while connection.recv():
        took, output = timed(task)
        connection.send((took.wall, took.cpu, peak_mib(), output[..., ::997].numpy()))


class Side:
    """A process with one of the two networks."""

    def __init__(self, side: str, network: Network, name: str, device: str, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(
            target=work, args=(side, network, name, device, threads, other), daemon=True
        )
        self._process.start()
        other.close()

    def run(self) -> tuple[float, float, float, np.ndarray[Any, Any]]:
        """Wall and CPU seconds, the peak in MiB so far, and a part of the output."""
        self._connection.send(True)
        return self._connection.recv()

    def stop(self) -> None:
        """End the process."""
        self._connection.send(False)
        self._process.join()


def measure(
    name: str, device: str, rounds: int, threads: int, seconds: float | None = None
) -> dict[str, float]:
    """Print and return the figures of one model."""
    network = network_of(name, seconds)
    sides = {side: Side(side, network, name, device, threads) for side in TASKS}
    took: dict[str, list[tuple[float, float, float, Any]]] = {side: [] for side in TASKS}
    for number in range(rounds):
        for side, process in sides.items():
            took[side].append(process.run())
            print(f"  {name}, round {number + 1}: {side} {took[side][-1][0]:.1f} s", file=sys.stderr)
    for process in sides.values():
        process.stop()
    ours, theirs = took["ours"], took["pymss-core"]
    error = max(float(np.abs(a[3] - b[3]).max()) for a, b in zip(ours, theirs, strict=True))
    level = float(np.sqrt(np.mean(np.square(theirs[0][3]))))
    cpu = [a[1] / b[1] for a, b in zip(ours, theirs, strict=True)]
    wall = [one[0] for one in ours]
    # A long song has a chunk for every stride; so many chunks, and the accompaniment, are a minute of it.
    chunks = 60 * SAMPLE_RATE * network.chunks.overlap / network.chunks.frames
    print(f"{name}, a chunk of {network.chunks.frames / SAMPLE_RATE:.1f} s, {chunks:.1f} chunks a minute")
    print(f"  wall s, ours              {spread(wall)}")
    print(f"  CPU s, ours               {spread([one[1] for one in ours])}")
    print(f"  CPU s, pymss-core         {spread([one[1] for one in theirs])}")
    print(f"  CPU, ours / pymss-core    {spread(cpu)}")
    print(f"  peak MiB, ours, theirs    {ours[-1][2]:.0f}, {theirs[-1][2]:.0f}")
    print(f"  times real time, wall     {statistics.median(wall) * chunks / 60:.1f}")
    print(f"  largest error             {error:.2g} (the stems have an RMS of {level:.2g})", flush=True)
    return {"cpu_ratio": statistics.median(cpu), "max_abs_error": error, "peak_mib": ours[-1][2]}


class Returns:
    """A separator with a model's chunks, whose stems are the mixture."""

    def __init__(self, name: str) -> None:
        model = Chunked(name, "0" * 64, network_of(name), torch.nn.Identity(), "cpu", SeparationOptions())
        self.identity, self.stems, self.plan = model.identity, model.stems, model.plan
        self.shorter_plans, self.batch, self.device, self.normalised = (), 1, "cpu", False

    def separate(self, segments: torch.Tensor) -> torch.Tensor:
        """Every stem is the segment."""
        return segments[:, None].repeat(1, len(self.stems), 1, 1)


def stream_noise(separator: Separator, seconds: float) -> None:
    """Stream a song of noise, of whole blocks."""
    streaming = StreamingSeparation(separator)
    streaming.open("song", Normalisation())
    block = np.random.default_rng(0).uniform(-1, 1, (2, BLOCK_FRAMES)).astype(np.float32)
    frames, blocks = 0, round(seconds * SAMPLE_RATE / BLOCK_FRAMES)
    for _ in range(blocks):
        for piece in streaming.push("song", block.copy()):
            frames += piece.stems.shape[-1]  # pyright: ignore[reportAttributeAccessIssue]
    for piece in [*streaming.finish("song"), *streaming.flush()]:
        frames += piece.stems.shape[-1]  # pyright: ignore[reportAttributeAccessIssue]
    assert frames == blocks * BLOCK_FRAMES


def memory_of_noise(name: str, minutes: int, connection: Connection) -> None:
    """Run in a process: stream a song through the chunks of a model, and send the peak in MiB."""
    stream_noise(Returns(name), minutes * 60)
    connection.send(peak_mib())


def song_of_noise(name: str, device: str, seconds: float, threads: int, connection: Connection) -> None:
    """Run in a process: stream a song through a model, and send the time and the peak in MiB."""
    separator = our_separator(network_of(name), name, device)
    torch.set_num_threads(threads)  # tests/support sets one
    took = spent(lambda: stream_noise(separator, seconds))
    connection.send((took.wall, took.cpu, peak_mib()))


def measure_song(chosen: Sequence[str], device: str, seconds: float, threads: int) -> None:
    """Print the figures of a song through each of the models ``chosen``, or all. The last line is JSON."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, dict[str, float]] = {}
    for name in chosen or names():
        receiver, sender = context.Pipe()
        process = context.Process(target=song_of_noise, args=(name, device, seconds, threads, sender))
        process.start()
        wall, cpu, peak = receiver.recv()
        process.join()
        print(
            f"{name}: {seconds:g} s of audio in {wall:.1f} s ({wall / seconds:.1f} times real time), CPU {cpu:.1f} s,"
            f" peak {peak:.0f} MiB",
            flush=True,
        )
        found[name] = {"wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mib": round(peak)}
    print(json.dumps(found))


def memory_by_length(name: str) -> dict[str, float]:
    """Print and return the ratio of the peaks of a long and a short song."""
    peaks: list[float] = []
    context = multiprocessing.get_context("spawn")
    for minutes in MINUTES:
        receiver, sender = context.Pipe()
        process = context.Process(target=memory_of_noise, args=(name, minutes, sender))
        process.start()
        peaks.append(receiver.recv())
        process.join()
    ratio = peaks[1] / peaks[0]
    print(
        f"{name}, memory: {MINUTES[0]} min {peaks[0]:.0f} MiB, {MINUTES[1]} min {peaks[1]:.0f} MiB: {ratio:.3f}"
    )
    return {"memory_ratio": ratio}


def measure_networks(
    chosen: Sequence[str], device: str, rounds: int, threads: int, seconds: float | None
) -> None:
    """Measure the models ``chosen``, or all. The last line is JSON."""
    found = {name: memory_by_length(name) for name in chosen or names()}
    for name, figures in found.items():
        figures |= measure(name, device, rounds, threads, seconds)
    print(
        json.dumps(
            {name: {key: round(value, 4) for key, value in each.items()} for name, each in found.items()}
        )
    )
