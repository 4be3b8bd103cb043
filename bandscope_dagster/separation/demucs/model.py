"""The Hybrid Transformer Demucs models: four or six stems, by demucs's own classes with verified weights.

Rouard, Massa & Défossez, "Hybrid Transformers for Music Source Separation", ICASSP 2023. The output equals
``demucs.apply.apply_model(split=True, shifts=0, overlap=0.25)`` of demucs 4.1 to 1e-5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.models.store import read_verified
from bandscope_dagster.separation.demucs.bands import compute_in_bands
from bandscope_dagster.separation.demucs.transformer import use_onednn, uses_onednn
from bandscope_dagster.separation.inference import inference, prepare_network
from bandscope_dagster.separation.options import OVERLAP, Precision, SeparationOptions
from bandscope_dagster.separation.protocol import SegmentPlan

if TYPE_CHECKING:
    from demucs.htdemucs import HTDemucs
    from torch import Tensor

BAGS: Final[Mapping[str, tuple[tuple[float, ...], ...]]] = {
    # demucs/remote/htdemucs_ft.yaml: each network was fine-tuned for one stem, and only that stem of it is used.
    "htdemucs_ft": ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)),
}
"""For models of several networks: the weight of each network (in the inventory's order of files) in each stem."""

CLASS: Final = "demucs.htdemucs.HTDemucs"  # the only class that is built; a file with another is refused
MAX_SHIFT: Final = SAMPLE_RATE // 2  # frames; demucs/apply.py, apply_model: max_shift = int(0.5 * samplerate)
SHORTER: Final = (2, 4)  # divisors of a segment's length when memory runs out
ACCELERATOR_BATCH: Final = 8  # segments; on a CPU a second one gains nothing and takes 1 GB more


def load_demucs(model: Model, folder: Path, device: str, options: SeparationOptions) -> Demucs:
    """A model of the inventory from the files in ``folder``, on ``device`` as torch names it.

    Raises:
        ModelFileError: a file is missing, differs from the inventory, or names another class.
        SettingsError: the options do not fit the model.
    """
    verified = read_verified(model, folder)
    weights = BAGS.get(model.name)
    needed = _needed(model, options, weights)
    networks = [
        build_network(name, content)
        for index, (name, content) in enumerate(verified.files.items())
        if index in needed
    ]
    for network in networks:
        if model.stems and tuple(network.sources) != model.stems:
            raise ModelFileError(
                f"The weights of {model.name} have the stems {', '.join(network.sources)}; the inventory has "
                f"{', '.join(model.stems)}."
            )
    rows = None if weights is None else [weights[index] for index in needed]
    separator = Demucs(model.name, verified.sha256, networks, device, options, rows)
    separator.identity = replace(separator.identity, files=verified.digests)
    return separator


def _needed(
    model: Model, options: SeparationOptions, weights: Sequence[Sequence[float]] | None
) -> Sequence[int]:
    """The networks of a model, as indices, that have a weight in any of the chosen stems."""
    networks = range(len(model.files))
    if weights is None or options.stems is None:
        return networks
    columns = [model.stems.index(stem) for stem in options.stems]
    return [index for index in networks if any(weights[index][column] for column in columns)]


def build_network(name: str, content: bytes) -> HTDemucs:
    """The network of a safetensors file whose digest is verified; ``name`` is for messages.

    The file's layout is that of ``demucs.hf.load_safetensors_model``: class and arguments as JSON in the metadata.

    Raises:
        ModelFileError: the file is for another class than HTDemucs.
    """
    from demucs.htdemucs import HTDemucs
    from safetensors.torch import load

    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size]).get("__metadata__", {})
    if metadata.get("klass") != CLASS:
        raise ModelFileError(f"{name} is for the class {metadata.get('klass')!r}; only {CLASS} is supported.")
    # Its random initial weights are replaced. Torch's device "meta" would not draw them (0.2 s less), but it imports
    # torch's compiler (1 s more).
    network = HTDemucs(*_arguments(metadata["args"]), **_arguments(metadata["kwargs"]))
    weights = {tensor_name: tensor.float() for tensor_name, tensor in load(content).items()}
    network.load_state_dict(weights, assign=True)  # raises if a tensor is missing or has another shape
    return network


def _arguments(text: str) -> Any:
    """Constructor arguments from JSON, with fractions encoded as in demucs/hf.py."""

    def decode(value: dict[str, Any]) -> Any:
        if value.get("_type") == "fraction":
            return Fraction(value["numerator"], value["denominator"])
        return value

    return json.loads(text, object_hook=decode)


def triangular_plan(length: int, overlap: float, shifts: int = 0) -> SegmentPlan:
    """The segments of ``apply_model``: triangular weights, stride ``(1 - overlap) * length``.

    ``shifts`` passes are averaged, each shifted by a different part of half a second; 0 is one unshifted pass. Demucs
    draws the shifts at random; here they are spaced evenly, so that the output is deterministic.
    """
    half = length // 2
    weights = np.concatenate([np.arange(1, half + 1), np.arange(length - half, 0, -1)]).astype(np.float32)
    leads = tuple(MAX_SHIFT * (2 * index + 1) // (2 * shifts) for index in range(shifts)) or (0,)
    return SegmentPlan(
        length=length,
        stride=int((1 - overlap) * length),
        leads=leads,
        weights=weights / weights.max(),
        centred=True,
    )


class Demucs:
    """One HTDemucs network, or a bag of them: a weighted mean of their outputs, with weights per stem."""

    normalised = True

    def __init__(
        self,
        name: str,
        sha256: str,
        networks: Sequence[HTDemucs],
        device: str,
        options: SeparationOptions,
        weights: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """Prepare ``networks``, which have the same stems; ``weights`` has a row per network and a column per stem.

        With ``options.stems``, only these stems are returned.

        Raises:
            SettingsError: the segment is longer than the networks were trained for or too short for the shifts, or the
                device does not support the precision or oneDNN.
        """
        trained = min(float(network.segment) for network in networks)
        segment_s = options.segment_s or trained
        if segment_s > trained:
            raise SettingsError(
                f"BANDSCOPE_SEGMENT_S={segment_s:g} is longer than the {trained:g} s that {name} was trained for"
            )
        options.require_precision(name, device)
        overlap = OVERLAP if options.overlap is None else options.overlap
        shifts = options.shifts or 0
        self._precision: Precision = options.precision or "fp32"
        length = int(SAMPLE_RATE * (Fraction(networks[0].segment) if segment_s == trained else segment_s))
        sources = tuple(networks[0].sources)
        self.stems = sources if options.stems is None else options.stems
        self._columns = [sources.index(stem) for stem in self.stems]
        shortest = int((1 - overlap) * length)
        if shifts and MAX_SHIFT * (2 * shifts - 1) // (2 * shifts) >= shortest:
            raise SettingsError(
                f"BANDSCOPE_SHIFTS={shifts} shifts by up to {MAX_SHIFT / SAMPLE_RATE:g} s, but with "
                f"BANDSCOPE_SEGMENT_S={segment_s:g} and BANDSCOPE_OVERLAP={overlap:g} a segment begins every "
                f"{shortest / SAMPLE_RATE:.2f} s; "
                "set a longer segment, less overlap, or BANDSCOPE_SHIFTS=0"
            )
        self.plan = triangular_plan(length, overlap, shifts)
        self.shorter_plans = tuple(triangular_plan(length // part, overlap) for part in SHORTER)
        self.batch = options.batch or (1 if device == "cpu" else ACCELERATOR_BATCH)
        self.device = device
        self.identity = ModelIdentity(
            name=name,
            sha256=sha256,
            params={
                "segment_frames": length,
                "overlap": overlap,
                "shifts": shifts,
                "precision": self._precision,
            },
        )
        rows = weights or [[1.0] * len(sources)] * len(networks)
        self._weights = [[row[column] for column in self._columns] for row in rows]
        self._networks = [prepare_network(network, device) for network in networks]
        # Packed weights do not work with autocast, which computes the other precisions.
        onednn = device == "cpu" and self._precision == "fp32" and uses_onednn(options.onednn)
        for network in self._networks:
            if device == "cpu":
                compute_in_bands(network)
            if onednn:
                use_onednn(network)
            network.use_train_segment = False  # otherwise it pads shorter segments, which saves no memory

    def separate(self, segments: Tensor) -> Tensor:
        """``(batch, 2, length)`` float32 at 44.1 kHz → ``(batch, stems, 2, length)`` float32, on ``device``."""
        with inference(self._precision, self.device):
            if len(self._networks) == 1:
                output = self._networks[0](segments).float()
                return output if output.shape[1] == len(self.stems) else output[:, self._columns]
            sums = segments.new_zeros((len(segments), len(self.stems), *segments.shape[1:]))
            for network, row in zip(self._networks, self._weights, strict=True):
                output = network(segments).float()
                for stem, (column, weight) in enumerate(zip(self._columns, row, strict=True)):
                    if weight:
                        sums[:, stem] += output[:, column] * weight
            for stem, column in enumerate(zip(*self._weights, strict=True)):
                sums[:, stem] /= sum(column)
            return sums
