"""HTDemucs on a CUDA device, by batch size and precision, against ``apply_model`` on the same device.

Part of ``python -m benchmarks.separation``. Each row is our streaming separation of a song of ten minutes: the speed
relative to real time, the share of time in which kernels ran, the peak of torch's memory, and the signal-to-noise ratio
of the stems against strict float32 at batch 1. The floor is the best that the device could do: the floating-point
operations of a segment at the speed of a large matrix product in that precision, or the bytes of weights, segment and
stems at the speed of a large copy, whichever takes longer.
"""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.separation.inference import inference
from bandscope_dagster.separation.options import Precision, SeparationOptions
from bandscope_dagster.separation.protocol import Separator
from benchmarks.measuring import MIB
from benchmarks.random_demucs import random_network, random_separator

SECONDS = 600
BATCHES = (1, 2, 4, 8, 16, 32)
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16")
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
Audio = NDArray[np.float32]
Stream = Callable[[Separator, Audio], Audio]


def measure_cuda(folder: Path, device: str, stream: Stream) -> None:
    """Print the table; ``stream`` separates a whole song."""
    song = np.random.default_rng(0).normal(0, 0.1, (2, SECONDS * SAMPLE_RATE)).astype(np.float32)
    theirs = apply_model_factor(song, device)
    print(f"\napply_model on {torch.cuda.get_device_name(device)}: {theirs:.1f} times real time")
    print(f"{'':16}{'times real':>12}{'vs apply_model':>16}{'busy':>7}{'MiB':>8}{'SNR dB':>9}{'floor':>9}")
    exact: Audio | None = None
    for precision, batch in itertools.product(PRECISIONS, BATCHES):
        options = SeparationOptions(batch=batch, precision=precision)
        separator = random_separator(folder, device, options)
        torch.cuda.reset_peak_memory_stats(device)
        try:
            stream(separator, song[:, : 2 * batch * separator.plan.length])  # warms up
            start = time.perf_counter()
            stems = stream(separator, song)
            wall = time.perf_counter() - start
        except torch.OutOfMemoryError:
            print(f"{precision:10}{batch:6}  out of memory")
            continue
        exact = stems if exact is None else exact
        memory = torch.cuda.max_memory_allocated(device) / MIB
        factor = SECONDS / wall
        print(
            f"{precision:10}{batch:6}{factor:12.1f}{factor / theirs:16.2f}{busy(separator, song, stream):7.0%}"
            f"{memory:8.0f}{snr_db(stems, exact):9.1f}{floor_factor(separator, precision):9.0f}"
        )


def apply_model_factor(song: Audio, device: str) -> float:
    """The speed of demucs's own function relative to real time."""
    from demucs.apply import apply_model

    network, mixture = random_network().to(device), torch.from_numpy(song)[None]
    apply_model(network, mixture[..., : 60 * SAMPLE_RATE], shifts=0, device=device)
    start = time.perf_counter()
    apply_model(network, mixture, shifts=0, device=device)
    return SECONDS / (time.perf_counter() - start)


def busy(separator: Separator, song: Audio, stream: Stream) -> float:
    """The share of the time in which a kernel ran, over two minutes of the song."""
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        stream(separator, song[:, : 120 * SAMPLE_RATE])
    wall = time.perf_counter() - start
    return sum(event.self_device_time_total for event in profiler.key_averages()) / 1e6 / wall


def snr_db(stems: Audio, exact: Audio) -> float:
    """Signal-to-noise ratio of all stems together; inf if they are equal."""
    noise = float(np.mean((stems - exact).astype(np.float64) ** 2))
    return 10 * np.log10(float(np.mean(exact.astype(np.float64) ** 2)) / noise) if noise else float("inf")


def floor_factor(separator: Separator, precision: Precision) -> float:
    """The device's best possible speed relative to real time."""
    device, length = separator.device, separator.plan.length
    segment = torch.zeros((1, 2, length), device=device)
    with FlopCounterMode(display=False) as counter:
        separator.separate(segment)
    operations = counter.get_total_flops()
    moved = 4 * (
        sum(p.numel() for p in random_network().parameters()) + 2 * length * (1 + len(separator.stems))
    )
    side = 8192
    with inference(precision, device):
        matrix = torch.randn((side, side), device=device, dtype=HALF.get(precision, torch.float32))
        product = seconds_of(lambda: matrix @ matrix)
        copy = seconds_of(lambda: matrix.clone())
    compute = operations / (2 * side**3) * product
    memory = moved / (2 * matrix.numel() * matrix.element_size()) * copy
    return separator.plan.stride / SAMPLE_RATE / max(compute, memory)


def seconds_of(work: Callable[[], object], repeats: int = 20) -> float:
    """Mean seconds of one call on the device."""
    work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats
