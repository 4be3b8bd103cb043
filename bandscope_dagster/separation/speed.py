"""The time that a separator takes for a second of a song on its device, from one short call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from time import perf_counter
from typing import Final

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.separation.ensemble import AnySeparator, Ensemble

SHORT_S: Final = 1.0  # a call on the CPU that took less is repeated once: the first one also prepares memory


@cache
def measure_speed(separator: AnySeparator) -> float:
    """Seconds of computing per second of a song; measured once per separator of a process.

    One call with noise, and two if the first was short or on an accelerator. The segments are the shortest that the
    model takes, because a long one takes many seconds on a CPU; there are as many as in a batch of the model. The time
    of attention over time grows with the square of a segment's length, so that a RoFormer takes longer than this.
    """
    import torch

    if isinstance(separator, Ensemble):
        return sum(measure_speed(member) for member in separator.members)
    plan = separator.plan
    shortest = min((plan, *separator.shorter_plans), key=lambda each: each.length)
    segments = torch.randn((separator.batch, 2, shortest.length), generator=torch.Generator().manual_seed(0))
    segments = segments.to(separator.device)

    def call() -> float:
        start = perf_counter()
        separator.separate(segments)[..., :1].cpu()  # waits until an accelerator is done
        return perf_counter() - start

    def shortest_call() -> float:
        first = call()
        # On an accelerator the first call also loads libraries and kernels, which may take seconds.
        return first if separator.device == "cpu" and first >= SHORT_S else call()

    # In a thread that ends: torch's workers end with it. In this one they would stay, beside those of the thread that
    # runs the model later, and a network on the CPU takes 6 % longer with more workers than cores.
    with ThreadPoolExecutor(1, thread_name_prefix="measure-speed") as thread:
        took = thread.submit(shortest_call).result()
    overlap = len(plan.leads) * plan.length / plan.stride
    return took * overlap / (separator.batch * shortest.length / SAMPLE_RATE)


def device_in_words(device: str) -> str:
    """The device as people know it: ``2 CPU cores``, ``NVIDIA H200``."""
    import torch

    if device == "cpu":
        threads = torch.get_num_threads()
        return f"{threads} CPU {'core' if threads == 1 else 'cores'}"
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device.upper()


def in_words(seconds: float) -> str:
    """A duration, rounded as an estimate is: ``40 s``, ``25 min``, ``1 h 10 min``, ``3 days``."""
    if seconds < 90:
        return f"{max(1, round(seconds)):g} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes, -1), 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(seconds / 86_400)} days"
