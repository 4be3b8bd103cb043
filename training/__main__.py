"""Train the embedded instrument tagger.

    python -m training --work DIR [--notes DIR] [--seed 1] [--jobs 2] [--until STEP]

The steps, in order:

- ``fetch`` gets the packages of ``sources.toml`` (1 GB).
- ``bank`` renders and records hours of sounds, and keeps their mel spectra.
- ``features`` lets the frozen trunk hear mixtures.
- ``ear`` and ``perceptron`` train the two branches.
- ``write`` fits the branches' weights and writes ``bandscope-instruments.safetensors``.
- ``calibrate`` fits probabilities and bounds and writes ``instruments_bounds.toml``. It uses rendered audio and, with
  ``--notes``, phrases of half of the recorded notes of a folder (``notes.py``).
- ``evaluate`` judges on the other half.

Every step keeps its results in the work folder and is skipped when they are there, so a run that was stopped goes on.
Each prints what it costs. Debian's ``apt-get`` and ``npm`` are needed, and ``requirements.txt`` of this folder.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from training.notes import Half

STEPS: Final = ("fetch", "bank", "features", "ear", "perceptron", "write", "calibrate", "evaluate")
FEATURE_MIXTURES, EAR_MIXTURES, PERCEPTRON_EPOCHS = 40_960, 110_000, 24
HELD_OUT_MIXTURES: Final = 3_072
WEIGHTS, BOUNDS = "bandscope-instruments.safetensors", "instruments_bounds.toml"


def note(text: str) -> None:
    """Print a line with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


class Work:
    """The work folder, and the steps of training in it."""

    def __init__(self, folder: Path, seed: int, jobs: int, notes: Path | None) -> None:
        """``jobs`` processes work at once; ``notes`` is a folder of recorded notes, or None."""
        self.folder = folder
        self.seed = seed
        self.jobs = jobs
        self.notes = notes
        self.bank = folder / "bank"
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(self) -> None:
        """Get and unpack the packages."""
        from training.sources import Sources

        Sources(self.folder / "sources").fetch(note)

    def bank_files(self, *, held_out: bool) -> list[Path]:
        """The files of the bank for training, or those held out."""
        return [path for path in sorted(self.bank.glob("*.npz")) if path.stem.startswith("val-") == held_out]

    def make_bank(self) -> None:
        """Render and record every origin, ``jobs`` at once."""
        from training.origins import Origins, make_origin
        from training.sources import Sources

        self.bank.mkdir(exist_ok=True)
        names = Origins(Sources(self.folder / "sources"), self.bank).makers
        todo = [(self.folder, self.seed, name) for name in names if not (self.bank / f"{name}.npz").exists()]
        with ProcessPoolExecutor(self.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            for name, seconds, took in pool.map(make_origin, todo):
                note(f"{name}: {seconds / 60:.0f} min of sounds in {took:.0f} s")

    def features(self) -> None:
        """The trunk's features of mixtures."""
        from training.fitting import extract

        files = self.bank_files(held_out=False)
        extract(files, self.seed, FEATURE_MIXTURES, self.folder / "features", self.jobs, note)

    def ear(self) -> None:
        """Train the ear."""
        import torch

        from training.bank import Bank
        from training.fitting import fit_ear
        from training.mixing import Mixer

        target = self.folder / "ear.pt"
        if not target.exists():
            mixer = Mixer(Bank(self.bank_files(held_out=False)), self.seed + 1)
            model = fit_ear(mixer, EAR_MIXTURES, self.seed, self.folder / "ear.checkpoint", note)
            torch.save(model.state_dict(), target)

    def perceptron(self) -> None:
        """Train the perceptron on the features."""
        import torch

        from training.fitting import fit_perceptron, read_features, scaling

        target = self.folder / "perceptron.pt"
        if not target.exists():
            features, heard = read_features(self.folder / "features")
            mean, scale = scaling(features)
            scaled = ((features - mean) * scale).clamp(-6, 6)
            model = fit_perceptron(scaled, heard, self.seed, PERCEPTRON_EPOCHS)
            torch.save({"mean": mean, "scale": scale, "weights": model.state_dict()}, target)

    def write(self) -> None:
        """Fit the weights of both branches on held-out mixtures, and write the network."""
        from training.outcome import assemble, write_weights

        target = self.folder / WEIGHTS
        if not target.exists():
            network = assemble(self.folder, self.bank_files(held_out=True), self.seed + 2, HELD_OUT_MIXTURES)
            write_weights(network, target)
            note(f"{target}: {target.stat().st_size / 1e6:.1f} MB")

    def calibrate(self) -> None:
        """Fit probabilities and bounds, and write them."""
        from training.calibration import calibrate
        from training.outcome import held_out_windows, read_weights, write_bounds

        network = read_weights(self.folder / WEIGHTS)
        rendered = held_out_windows(network, self.bank_files(held_out=True), self.seed + 3, HELD_OUT_MIXTURES)
        real = [] if self.notes is None else list(self._real(network, "a").values())
        write_bounds(calibrate(rendered, real), self.folder / BOUNDS)

    def _real(self, network: object, half: Half):
        from training.outcome import real_windows

        assert self.notes is not None
        return real_windows(network, self.notes, half, self.folder / f"notes-{half}.pt")

    def evaluate(self) -> None:
        """Judge on the other half of the notes: figures, a table of classes, pictures."""
        if self.notes is None:
            note("no --notes: nothing to judge on")
            return
        from bandscope_dagster.tagging.instruments_bounds import read_bounds
        from training.outcome import read_weights, report

        network = read_weights(self.folder / WEIGHTS)
        report(self._real(network, "b"), read_bounds(self.folder / BOUNDS), self.folder, note)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the steps that are not done."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description="Train the embedded instrument tagger."
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made; 10 GB")
    parser.add_argument(
        "--notes", type=Path, help="folder of recorded notes with labels.csv, for bounds and figures"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1], help="the last step to run")
    chosen = parser.parse_args(arguments)
    work = Work(chosen.work, chosen.seed, chosen.jobs, chosen.notes)
    steps: dict[str, Callable[[], None]] = {
        "fetch": work.fetch,
        "bank": work.make_bank,
        "features": work.features,
        "ear": work.ear,
        "perceptron": work.perceptron,
        "write": work.write,
        "calibrate": work.calibrate,
        "evaluate": work.evaluate,
    }
    for name in STEPS[: STEPS.index(chosen.until) + 1]:
        began, cpu = time.monotonic(), time.process_time()
        steps[name]()
        note(
            f"{name}: {time.monotonic() - began:.0f} s, {time.process_time() - cpu:.0f} CPU seconds of this process"
        )


if __name__ == "__main__":
    main()
