"""Train the two branches on mixtures from a bank."""

import copy
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.store import EMBEDDED, read_verified
from bandscope_dagster.tagging import musicnn
from bandscope_dagster.tagging.instruments_network import (
    build_ear,
    build_network,
    build_perceptron,
    ear_input,
)
from training.bank import Bank
from training.mixing import Mixer

TRUNK_FILE: Final = "musicnn-mtt.safetensors"
SHARD: Final = 1024  # mixtures in one file of features
EAR_BATCH, EAR_RATE, EAR_DECAY = 16, 1.2e-3, 0.03
EASY: Final = 0.4  # of the ear's training, in which mixtures grow from easy to usual
EMA: Final = 0.998  # of the ear's weights; the average is kept
PERCEPTRON_BATCH, PERCEPTRON_RATE, PERCEPTRON_DECAY = 64, 1.5e-3, 0.1


def untrained_network() -> nn.Module:
    """The network with MusiCNN's weights in its trunk, and random ones elsewhere."""
    network = build_network()
    network.trunk.load_state_dict(load(read_verified(find_model(musicnn.NAME), EMBEDDED).files[TRUNK_FILE]))
    return network.eval()


def scaling(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each feature, and what it is multiplied with for a deviation of one."""
    return features.mean(0), 1 / (features.std(0) + 1e-3)


def extract(
    bank_files: Sequence[Path],
    seed: int,
    count: int,
    folder: Path,
    jobs: int,
    note: Callable[[str], None],
    *,
    shard: int = SHARD,
    progress: float = 1.0,
) -> None:
    """Write the trunk's features of ``count`` mixtures, in files of ``shard``; files that exist are kept.

    ``jobs`` processes make them. Each file has a seed of its own, so they can be made in any order. ``progress`` is
    that of ``Mixer.batch``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    paths = [folder / f"{number:04}.npz" for number in range(count // shard)]
    todo = [
        (tuple(bank_files), seed + 1000 * number, path, shard, progress)
        for number, path in enumerate(paths, 1)
        if not path.exists()
    ]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for done, _ in enumerate(pool.map(_write_shard, todo), 1):
            note(f"features {done * shard} of {len(todo) * shard}, {time.monotonic() - began:.0f} s")


@cache
def _bank(files: tuple[Path, ...]) -> Bank:
    """The bank, read once in each process of ``extract``."""
    return Bank(files)


def _write_shard(job: tuple[tuple[Path, ...], int, Path, int, float]) -> None:
    torch.set_num_threads(1)
    bank_files, seed, path, shard, progress = job
    mixer, network = Mixer(_bank(bank_files), seed), untrained_network()
    features: list[Tensor] = []
    heard: list[Tensor] = []
    with torch.inference_mode():
        for _ in range(shard // 32):
            batch = mixer.batch(32, progress)
            # One by one: on a CPU, larger calls of the trunk lose their gain to page faults.
            features += [network.features(patch).half() for patch in batch.trunk.split(1)]
            heard.append(batch.heard.bool())
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, features=torch.cat(features).numpy(), heard=torch.cat(heard).numpy())
    part.replace(path)


def read_features(folder: Path) -> tuple[Tensor, Tensor]:
    """All features and labels of a folder: ``(mixtures, features)`` float32, ``(mixtures, classes)`` float32."""
    features: list[Tensor] = []
    heard: list[Tensor] = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            features.append(torch.from_numpy(stored["features"]).float())
            heard.append(torch.from_numpy(stored["heard"]).float())
    return torch.cat(features), torch.cat(heard)


def fit_perceptron(features: Tensor, heard: Tensor, seed: int, epochs: int) -> nn.Module:
    """The perceptron on scaled features."""
    torch.manual_seed(seed)
    model = build_perceptron()
    optimizer = torch.optim.AdamW(model.parameters(), PERCEPTRON_RATE, weight_decay=PERCEPTRON_DECAY)
    model.train()
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = PERCEPTRON_RATE * (1 - epoch / epochs)
        for chosen in torch.randperm(len(features)).split(PERCEPTRON_BATCH):
            noisy = features[chosen] + 0.1 * torch.randn(len(chosen), features.shape[1])
            loss = functional.binary_cross_entropy_with_logits(model(noisy), heard[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def _masked(patches: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift by a band, and hide some bands and some time (Park et al., "SpecAugment", Interspeech 2019)."""
    patches = patches.clone()
    _, frames, bands = patches.shape
    for patch in patches:
        shift = int(rng.integers(-1, 2))
        if shift:
            patch.copy_(torch.roll(patch, shift, 1))
        for _ in range(rng.integers(0, 3)):
            low = int(rng.integers(0, bands - 8))
            patch[:, low : low + int(rng.integers(1, 9))] = patch.mean()
        if rng.random() < 0.4:
            start = int(rng.integers(0, frames - 30))
            patch[start : start + int(rng.integers(5, 30))] = patch.min()
    return patches


def fit_ear(
    mixer: Mixer, mixtures: int, seed: int, checkpoint: Path, note: Callable[[str], None]
) -> nn.Module:
    """The ear on ``mixtures`` new mixtures; goes on from ``checkpoint``, which is written every few minutes."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = build_ear().to(memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), EAR_RATE, weight_decay=EAR_DECAY)
    steps, first = mixtures // EAR_BATCH, 0
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(stored["model"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        first = stored["step"]
    running, began, saved = 0.0, time.monotonic(), time.monotonic()
    for step in range(first, steps):
        progress = step / steps
        rate = float(
            EAR_RATE * min(1, progress / 0.04 + 0.01) * (0.5 * (1 + np.cos(np.pi * progress)) + 0.005)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = mixer.batch(EAR_BATCH, min(1.0, max(0.0, progress / EASY - 0.25) / 0.75))
        model.train()
        logits = model(_masked(ear_input(batch.ear), rng))
        loss = functional.binary_cross_entropy_with_logits(logits, batch.heard)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        running = 0.98 * running + 0.02 * loss.item() if running else loss.item()
        decay = min(EMA, 1 - 1 / (step + 1))
        with torch.no_grad():
            for kept, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                if kept.dtype.is_floating_point:
                    kept.mul_(decay).add_(new, alpha=1 - decay)
                else:
                    kept.copy_(new)
        if time.monotonic() - saved > 120 or step == steps - 1:
            saved = time.monotonic()
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            part = checkpoint.with_suffix(".part")
            torch.save(state, part)
            part.replace(checkpoint)
            note(
                f"ear: {(step + 1) * EAR_BATCH} of {mixtures} mixtures, loss {running:.4f}, {saved - began:.0f} s"
            )
    return average.eval()
