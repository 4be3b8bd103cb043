"""Put the trained parts together, and judge them: weights, bounds, figures."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bandscope_dagster.tagging.audioset import INSTRUMENT_CLASSES
from bandscope_dagster.tagging.instruments_bounds import ClassBounds
from bandscope_dagster.tagging.instruments_network import CLASSES, build_network, ear_input
from training.bank import Bank
from training.calibration import Floats, Windows, fit_branches, pooled
from training.evaluation import (
    class_table,
    draw_confusion,
    draw_reliability,
    expected_calibration_error,
    judged,
    probabilities,
    rules_compared,
    write_json,
)
from training.fitting import untrained_network
from training.listening import ear_logits, listen
from training.mixing import Mixer
from training.notes import Half, Notes

NOTES_SEED: Final = 7  # of the halves of the real notes
PHRASES_EACH, MIXTURES = 15, 240  # of the real notes, in each half


def write_weights(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors, whole or not at all.

    The matrices that were trained here are rounded to half precision; they are read back into float32.
    """

    def rounded(name: str, tensor: Tensor) -> Tensor:
        ours = name.startswith(("ear.", "perceptron.")) and tensor.ndim > 1
        return (tensor.half() if ours else tensor).contiguous()

    part = path.with_suffix(".part")
    save_file({name: rounded(name, tensor) for name, tensor in network.state_dict().items()}, part)
    part.replace(path)


def read_weights(path: Path) -> nn.Module:
    """The network of a weights file."""
    network = build_network()
    network.load_state_dict(load_file(path))
    return network.eval()


def _held_out(
    network: nn.Module, bank_files: Sequence[Path], seed: int, count: int
) -> tuple[Floats, Floats, Any]:
    """Held-out mixtures: logits of the perceptron and of the ear, and what is heard."""
    mixer = Mixer(Bank(bank_files), seed)
    trunk: list[Tensor] = []
    ear: list[Tensor] = []
    heard: list[Tensor] = []
    with torch.inference_mode():
        for _ in range(count // 32):
            batch = mixer.batch(32)
            # One by one, as in fitting.extract.
            trunk += [network.judge(network.features(patch)) for patch in batch.trunk.split(1)]
            ear.append(network.ear(ear_input(batch.ear)))
            heard.append(batch.heard.bool())
    return torch.cat(trunk).double().numpy(), torch.cat(ear).double().numpy(), torch.cat(heard).numpy()


def assemble(folder: Path, held_out: Sequence[Path], seed: int, count: int) -> nn.Module:
    """The network of the trained branches in ``folder``, with their weights in the sum fitted on held-out mixtures."""
    network = untrained_network()
    trained = torch.load(folder / "perceptron.pt", weights_only=True)
    network.feature_mean.copy_(trained["mean"])
    network.feature_scale.copy_(trained["scale"])
    network.perceptron.load_state_dict(trained["weights"])
    network.ear.load_state_dict(torch.load(folder / "ear.pt", weights_only=True))
    trunk, ear, heard = _held_out(network, held_out, seed, count)
    network.branch_weights.copy_(torch.from_numpy(fit_branches(trunk, ear, heard)).float())
    return network


def held_out_windows(network: nn.Module, bank_files: Sequence[Path], seed: int, count: int) -> Windows:
    """The network's logits of held-out mixtures; each window is a piece of its own."""
    trunk, ear, heard = _held_out(network, bank_files, seed, count)
    weights = network.branch_weights.double().numpy()
    return Windows(weights[0] * trunk + weights[1] * ear, heard, np.arange(len(heard)))


def real_windows(network: nn.Module, notes: Path, half: Half, kept: Path) -> dict[str, Windows]:
    """The logits of phrases ("single") and of mixtures ("mixture") of one half of a folder of notes.

    ``kept`` keeps what the frozen parts hear of them, so that another ear or perceptron is judged quickly.
    """
    if not kept.exists():
        read = Notes(notes, NOTES_SEED)
        stored: dict[str, Any] = {}
        offset = 100 if half == "a" else 200
        for name, pieces in (
            ("single", read.phrases(half, PHRASES_EACH, offset)),
            ("mixture", read.mixtures(half, MIXTURES, offset + 1)),
        ):
            heard = listen(network, [piece.audio for piece in pieces])
            truth = torch.tensor([[label in piece.heard for label in CLASSES] for piece in pieces])
            stored[name] = {
                "features": heard.features.half(),
                "patches": heard.patches,
                "pieces": torch.from_numpy(heard.pieces),
                "truth": truth,
                "names": [piece.name for piece in pieces],
            }
        torch.save(stored, kept)
    weights = network.branch_weights
    result: dict[str, Windows] = {}
    for name, part in torch.load(kept, weights_only=True).items():
        with torch.inference_mode():
            trunk = network.judge(part["features"].float())
        logits = weights[0] * trunk + weights[1] * ear_logits(network.ear, part["patches"])
        pieces = part["pieces"].numpy()
        result[name] = Windows(logits.double().numpy(), part["truth"].numpy()[pieces], pieces, part["names"])
    return result


def write_bounds(calibration: Mapping[str, ClassBounds], path: Path) -> None:
    """Write the calibration as TOML."""
    lines = [
        "# Written by `python -m training`. Per class: the score is a probability,",
        "# sigmoid(scale * logit - rivals * highest logit of another class + offset). From `present_from` on, the",
        "# instrument counts as present; `chosen_on` says what this bound was chosen on.",
    ]
    for name in CLASSES:
        values = calibration[name]
        lines += ["", f'["{name}"]', f"scale = {values.scale}", f"rivals = {values.rivals}"]
        lines += [f"offset = {values.offset}", f"present_from = {values.present_from}"]
        lines.append(f'chosen_on = "{values.chosen_on}"')
        if values.audioset is not None:
            assert name == "speech" or values.audioset in INSTRUMENT_CLASSES
            lines.append(f'audioset = "{values.audioset}"')
    path.write_text("\n".join(lines) + "\n")


def report(
    real: Mapping[str, Windows],
    calibration: Mapping[str, ClassBounds],
    folder: Path,
    note: Callable[[str], None],
) -> None:
    """Print the figures, and write ``figures.json``, ``confusion.svg`` and ``reliability.svg`` to ``folder``."""
    bounds = np.array([calibration[name].present_from for name in CLASSES])
    values: dict[str, object] = {}
    reliability: dict[str, tuple[Floats, Any]] = {}
    for name, windows in real.items():
        scores = pooled(probabilities(windows, calibration), windows.pieces, windows.count)
        truth = windows.truth_of_pieces()
        figures = judged(scores, truth, bounds)
        low, high = figures.micro_f1_interval
        note(
            f"{name}: {len(truth)} pieces, micro-F1 {figures.micro_f1:.3f} ({low:.3f} to {high:.3f}), top-1 "
            f"{figures.top_1:.3f}, mean average precision {figures.mean_ap:.3f}, precision {figures.precision:.2f}, "
            f"recall {figures.recall:.2f}"
        )
        table = class_table(scores, truth, bounds)
        for row in table:
            if row[1] or row[2] == 0:
                note("  {:18} {:4} pieces  P {:.2f}  R {:.2f}  F1 {:.2f}  AP {:.2f}".format(*row))
        window_probability = probabilities(windows, calibration)
        reliability[f"{name}s of real notes"] = (window_probability, windows.truth)
        error = expected_calibration_error(window_probability, windows.truth)
        values[name] = {**asdict(figures), "expected_calibration_error": error, "classes": table}
        if name == "single":
            rows = list(dict.fromkeys(windows.names))
            counts = np.zeros((len(rows), len(CLASSES)))
            for piece, best in enumerate(scores.argmax(1)):
                counts[rows.index(windows.names[piece]), best] += 1
            draw_confusion(folder / "confusion.svg", rows, counts)
            for row, line in zip(rows, counts, strict=True):
                top = Counter(dict(zip(CLASSES, line.astype(int).tolist(), strict=True))).most_common(3)
                note(f"  {row:16} " + ", ".join(f"{label} {number}" for label, number in top if number))
    draw_reliability(folder / "reliability.svg", reliability)
    rules = rules_compared(real, calibration, ("mean", "best quarter", "noisy-or", "maximum"))
    for rule, name, mean_ap, f1 in rules:
        note(f"  {rule:12} {name:8} mean average precision {mean_ap:.3f}, micro-F1 with one bound {f1:.3f}")
    values["rules"] = rules
    write_json(folder / "figures.json", values)
