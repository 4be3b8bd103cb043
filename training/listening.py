"""What both branches say of audio: window by window, as the tagger hears it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bandscope_dagster.tagging.instruments_network import (
    LEAD,
    LENGTH,
    SAMPLE_RATE,
    ear_input,
)
from bandscope_dagster.tagging.protocol import WindowPlan
from bandscope_dagster.tagging.windows import Windows

PLAN = WindowPlan(sample_rate=SAMPLE_RATE, length=LENGTH, hop=LENGTH, lead=LEAD)


@dataclass(frozen=True, slots=True)
class Heard:
    """The audible windows of several pieces of audio, one after the other."""

    features: Tensor  # (windows, features) of the trunk, unscaled
    patches: Tensor  # (windows, EAR_FRAMES, bands) float16, the ear's input
    pieces: NDArray[np.int64]  # (windows,): the piece that each belongs to


def windows_of(audio: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The audible windows ``(LEAD + LENGTH,)`` of ``(frames,)`` samples."""
    windows = Windows(PLAN)
    return [window.samples for window in (*windows.push(audio), *windows.finish()) if not window.silent]


def listen(network: nn.Module, pieces: Sequence[NDArray[np.float32]]) -> Heard:
    """The features and patches of all pieces, ``(frames,)`` mono float32 at ``SAMPLE_RATE`` each."""
    features: list[Tensor] = []
    patches: list[Tensor] = []
    owners: list[int] = []
    with torch.inference_mode():
        for number, audio in enumerate(pieces):
            found = windows_of(audio)
            if not found:
                continue
            samples = torch.from_numpy(np.stack(found))
            features.append(network.features(network.trunk_power(samples)))
            patches.append(ear_input(network.ear_power(samples)).half())
            owners += [number] * len(found)
    return Heard(torch.cat(features), torch.cat(patches), np.array(owners))


def ear_logits(ear: nn.Module, patches: Tensor) -> Tensor:
    """``(windows, classes)`` of the ear."""
    with torch.inference_mode():
        return torch.cat([ear(part.float()) for part in patches.split(32)])
