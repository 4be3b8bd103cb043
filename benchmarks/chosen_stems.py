"""The time of htdemucs_ft for one stem against that for all four.

    python -m benchmarks.chosen_stems [--rounds 3] [--stem vocals]

Four networks of the published architecture with random weights, loaded by the product's own loader, once for all stems
and once for one. Each round separates the same segment of 7.8 s with both, in turn, and then the same 20 s through
``StreamingSeparation``. CPU seconds are of all threads. The last line is JSON.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bandscope_dagster.allocator import share_freed_memory
from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.models.inventory import Model, ModelFile, find_model
from bandscope_dagster.separation.demucs.model import load_demucs
from bandscope_dagster.separation.options import SeparationOptions
from benchmarks.measuring import median_ratio, spent, spread
from benchmarks.random_demucs import SIGNATURE, write_weights
from benchmarks.separation import describe, stream

NAME = "htdemucs_ft"
SONG_S = 20.0


def write_bag(folder: Path) -> Model:
    """Write the weights of four networks; returns their entry as the inventory would have it."""
    write_weights(folder)
    source = folder / f"{SIGNATURE}.safetensors"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    names = [file.name for file in find_model(NAME).files]
    for name in names:
        shutil.copy(source, folder / name)
    files = tuple(ModelFile(name, source.stat().st_size, digest) for name in names)
    return replace(find_model(NAME), files=files)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure one stem of htdemucs_ft against all four.")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--stem", default="vocals", help="default: vocals")
    arguments = parser.parse_args()
    share_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        model = write_bag(Path(name))
        whole, one = (
            load_demucs(model, Path(name), "cpu", SeparationOptions(stems=stems))
            for stems in (None, (arguments.stem,))
        )
    segment = torch.randn((1, 2, whole.plan.length), generator=torch.Generator().manual_seed(0))
    song = np.random.default_rng(0).normal(0, 0.1, (2, round(SONG_S * SAMPLE_RATE))).astype(np.float32)
    row = whole.stems.index(arguments.stem)
    assert torch.equal(whole.separate(segment)[:, row : row + 1], one.separate(segment)), "also warms up"
    print(f"{NAME}, {arguments.stem} / all stems, {arguments.rounds} rounds, {describe('cpu')}")
    found: dict[str, float] = {}
    works = {
        "segment": lambda separator: separator.separate(segment),
        "song": lambda separator: stream(separator, song),
    }
    for what, work in works.items():
        rounds = [[spent(partial(work, each)) for each in (one, whole)] for _ in range(arguments.rounds)]
        for kind in ("cpu", "wall"):
            these, those = ([getattr(each, kind) for each in side] for side in zip(*rounds, strict=True))
            found[f"{what}_{kind}_ratio"] = median_ratio(these, those)
            print(
                f"{what}, {kind} s: {spread(these)} / {spread(those)} = {found[f'{what}_{kind}_ratio']:.3f}"
            )
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
