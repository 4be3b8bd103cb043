"""The bank: hours of mel spectra, one source of one class at a time, from which mixtures are made while training.

A bank file has, for one origin (a soundfont, a package of recordings, a speaker), the mel power of its takes for both
branches of the network, as logarithms in half precision, one after the other, and a table of takes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from bandscope_dagster.tagging import musicnn
from bandscope_dagster.tagging.instruments_network import (
    CLASSES,
    EAR_FFT,
    SAMPLE_RATE,
    TRUNK_FRAMES,
)

NOTHING: Final = -1  # the class of sounds with no instrument
SMALLEST: Final = 1e-10  # mel power; below it is silence
FRONT_ENDS: Final = tuple(
    (torch.hann_window(n_fft), torch.from_numpy(musicnn.mel_filters(n_fft)))
    for n_fft in (musicnn.N_FFT, EAR_FFT)
)
"""Window and filters of the trunk, then of the ear, as in the network."""
TOO_QUIET: Final = 1e-4  # RMS; a take below it has lost its notes


@dataclass(frozen=True, slots=True)
class Take:
    """A few seconds of one source: ``(frames,)`` mono float32 at ``SAMPLE_RATE``, and what is heard in it."""

    classes: tuple[int, ...]  # indices in ``CLASSES``; empty for a sound with no instrument
    kind: str  # the preset, package or speaker
    audio: NDArray[np.float32]


def class_index(name: str) -> int:
    """The position of a class in the network's output."""
    return CLASSES.index(name)


def log_mels(audio: NDArray[np.float32]) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """``(frames,)`` samples → log mel power for the trunk and for the ear, ``(mel frames, bands)`` each."""
    samples = torch.from_numpy(np.ascontiguousarray(audio))[None]
    powers = (musicnn.mel_power(samples, window, filters)[0] for window, filters in FRONT_ENDS)
    trunk, ear = (torch.log(power + SMALLEST).half().numpy() for power in powers)
    return trunk, ear


def write_bank(path: Path, takes: Iterable[Take]) -> float:
    """Write a bank file, whole or not at all; returns its seconds of audio. Takes too quiet or short are left out."""
    trunks: list[NDArray[np.float16]] = []
    ears: list[NDArray[np.float16]] = []
    rows: list[tuple[int, int]] = []  # first frame, frames
    heard: list[NDArray[np.bool_]] = []
    kinds: list[str] = []
    at = 0
    for take in takes:
        if np.sqrt(np.mean(np.square(take.audio))) < TOO_QUIET:
            continue
        trunk, ear = log_mels(take.audio)
        if len(trunk) <= TRUNK_FRAMES:
            continue
        padded = np.full_like(trunk, np.log(SMALLEST))
        padded[: len(ear)] = ear  # its longer frames are fewer; both begin at the same sample
        trunks.append(trunk)
        ears.append(padded)
        rows.append((at, len(trunk)))
        marks = np.zeros(len(CLASSES), bool)
        marks[list(take.classes)] = True
        heard.append(marks)
        kinds.append(take.kind)
        at += len(trunk)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(
            file,
            trunk=np.concatenate(trunks),
            ear=np.concatenate(ears),
            rows=np.array(rows),
            heard=np.array(heard),
            kinds=np.array(kinds),
        )
    part.replace(path)
    return at * musicnn.HOP / SAMPLE_RATE


class Bank:
    """All takes of some bank files, in memory."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the files; ``paths`` must not be empty."""
        self.origins: list[str] = []
        self._files: list[dict[str, NDArray[np.generic]]] = []
        for path in paths:
            with np.load(path) as stored:
                self._files.append({name: stored[name] for name in stored.files})
            self.origins.append(path.stem)
        # class → origins of it → kinds (a preset of a font, a speaker …) → takes as (file, row)
        self.singles: dict[int, dict[int, list[list[tuple[int, int]]]]] = {}
        self.scenes: list[tuple[int, int]] = []  # takes with several classes
        groups: dict[tuple[int, int, str], list[tuple[int, int]]] = {}
        for number, file in enumerate(self._files):
            for row, (marks, kind) in enumerate(zip(file["heard"], file["kinds"], strict=True)):
                found = np.flatnonzero(marks)
                if str(kind).startswith("scene"):
                    self.scenes.append((number, row))
                else:
                    name = int(found[0]) if len(found) else NOTHING
                    groups.setdefault((name, number, str(kind)), []).append((number, row))
        for (name, number, _), takes in groups.items():
            self.singles.setdefault(name, {}).setdefault(number, []).append(takes)

    def window(self, take: tuple[int, int], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A random window of a take: mel power for the trunk and for the ear, ``(TRUNK_FRAMES, bands)`` each."""
        file, row = self._files[take[0]], take[1]
        first, frames = file["rows"][row]
        start = first + rng.integers(frames - TRUNK_FRAMES + 1)
        cut = slice(start, start + TRUNK_FRAMES)
        return (
            torch.from_numpy(file["trunk"][cut].astype(np.float32)).exp_(),
            torch.from_numpy(file["ear"][cut].astype(np.float32)).exp_(),
        )

    def heard(self, take: tuple[int, int]) -> NDArray[np.bool_]:
        """The classes of a take, ``(classes,)``."""
        return self._files[take[0]]["heard"][take[1]].astype(bool)
