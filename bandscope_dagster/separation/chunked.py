"""Separators whose network processes each chunk of a song on its own: SCNet and the RoFormers.

The output equals the published inference to 1e-5: ``demix`` of ZFTurbo/Music-Source-Separation-Training (MIT) with one
chunk in a batch. With more, that code drops the fade-out of all chunks of the last batch, so that its output depends on
the size of the batches; ours does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.models.networks import ACCOMPANIMENT, Network, ScnetNetwork
from bandscope_dagster.models.store import read_verified
from bandscope_dagster.separation.inference import inference, prepare_network
from bandscope_dagster.separation.options import Precision, SeparationOptions
from bandscope_dagster.separation.protocol import SegmentPlan
from bandscope_dagster.separation.roformer.network import build_roformer
from bandscope_dagster.separation.scnet.network import build_scnet

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# Of a chunk's length, one part fades in and one fades out; ``demix``: fade_size = chunk_size // 10.
FADES: Final = 10
SHORTER: Final = (2, 4, 8, 16)
"""Divisors of a chunk's length when memory runs out. The shortest chunk also measures the speed: on two cores a whole
one of BS-RoFormer-SW takes a minute.
"""
ACCELERATOR_BATCH: Final = 4  # chunks; a second one gains nothing on a CPU
NAMES: Final = 3  # of parameters, in a message about a file of another network


def load_chunked(model: Model, folder: Path, device: str, options: SeparationOptions) -> Chunked:
    """A model of the inventory from the file in ``folder``, on ``device`` as torch names it.

    Raises:
        ModelFileError: the file is missing, differs from the inventory, or is of another network.
        SettingsError: the options or the device do not fit the model.
    """
    network = model.network
    assert network is not None, model.name
    refuse_wrong_results(model.name, network, device)
    verified = read_verified(model, folder)
    (content,) = verified.files.values()
    module = load_module(network, content, model.name)
    separator = Chunked(model.name, verified.sha256, network, module, device, options)
    separator.identity = replace(separator.identity, files=verified.digests)
    return separator


def refuse_wrong_results(name: str, network: Network, device: str) -> None:
    """Raise SettingsError if the network is known to compute wrong stems on the device.

    SCNet on MPS with torch 2.13: a wrong answer in one of three to two of three calls, without an error (measured by
    openmirlab/scnet-infer, its CHANGELOG and README, September 2026).
    """
    if isinstance(network, ScnetNetwork) and device.startswith("mps"):
        raise SettingsError(
            f"{name} computes wrong stems on Apple's GPUs (MPS) with this torch, without an error: set "
            f"BANDSCOPE_DEVICE=cpu, or choose another BANDSCOPE_SEPARATOR"
        )


def build_module(network: Network) -> Module:
    """The network with random weights."""
    return build_scnet(network) if isinstance(network, ScnetNetwork) else build_roformer(network)


def load_module(network: Network, content: bytes, name: str) -> Module:
    """The network with the weights of a safetensors file; ``name`` is the model's, for messages.

    Raises:
        ModelFileError: the file has other parameters than the network.
    """
    import torch
    from safetensors.torch import load

    with torch.device("meta"):  # draws no random weights, which the file's replace
        module = build_module(network)
    weights = {key: tensor.float() for key, tensor in load(content).items()}
    require_parameters(module, {key: tuple(tensor.shape) for key, tensor in weights.items()}, name)
    module.load_state_dict(weights, assign=True)
    return module


def require_parameters(module: Module, found: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raise ModelFileError unless ``found``, the shapes of parameters by name, are exactly those of the network."""
    expected = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    other = [
        f"{key} is {found[key]} instead of {expected[key]}"
        for key in expected.keys() & found.keys()
        if found[key] != expected[key]
    ]
    differences = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape": sorted(other),
    }
    if any(differences.values()):
        parts = [f"{len(keys)} {what} ({_few(keys)})" for what, keys in differences.items() if keys]
        raise ModelFileError(
            f"The weights of {name} are of another network than the inventory describes: of {len(expected)} "
            f"parameters, {'; '.join(parts)}. Report this, or choose another model."
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMES]) + (", …" if len(names) > NAMES else "")


def faded_plan(length: int, stride: int) -> SegmentPlan:
    """Chunks that fade in and out linearly, from and to zero, over a tenth of their length each."""
    fade = length // FADES
    weights = np.ones(length, np.float32)
    weights[:fade] = np.linspace(0, 1, fade, dtype=np.float32)
    weights[length - fade :] = np.linspace(1, 0, fade, dtype=np.float32)
    return SegmentPlan(length, stride, weights=weights, reflected=True)


class Chunked:
    """One network that estimates stems, and the accompaniment as the mixture without them if the model has it."""

    def __init__(
        self,
        name: str,
        sha256: str,
        network: Network,
        module: Module,
        device: str,
        options: SeparationOptions,
    ) -> None:
        """Prepare ``module``, the network with its weights.

        Raises:
            SettingsError: an option is set that the model does not have, the chunk is longer than in training or
                shorter than a window, the overlap is shorter than a fade, or the device lacks the precision.
        """
        options.refuse("shifts", model=name)
        options.require_precision(name, device)
        chunks = network.chunks
        length = chunks.frames if options.segment_s is None else int(SAMPLE_RATE * options.segment_s)
        if not network.n_fft <= length <= chunks.frames:
            raise SettingsError(
                f"BANDSCOPE_SEGMENT_S={options.segment_s:g} does not fit {name}: it takes "
                f"{network.n_fft / SAMPLE_RATE:.2f} to {chunks.frames / SAMPLE_RATE:g} s"
            )
        stride = length // chunks.overlap if options.overlap is None else int((1 - options.overlap) * length)
        if length - stride < max(2, length // FADES):
            raise SettingsError(
                f"BANDSCOPE_OVERLAP={options.overlap:g} is too little for {name}: its chunks fade over a tenth of "
                f"their length, so set {1 / FADES:g} or more"
            )
        self.stems = network.stems
        self.normalised = chunks.normalised
        self.plan = faded_plan(length, stride)
        self.shorter_plans = tuple(
            faded_plan(length // part, stride // part)
            for part in SHORTER
            if length // part >= network.n_fft and stride // part
        )
        self.batch = options.batch or (1 if device == "cpu" else ACCELERATOR_BATCH)
        self.device = device
        self._precision: Precision = options.precision or "fp32"
        self._module = prepare_network(module, device)
        self._estimated = len(network.estimated)
        params: dict[str, Any] = {
            "segment_frames": length,
            "stride_frames": stride,
            "fade_frames": length // FADES,
            "ends": "reflected",
            "normalised": chunks.normalised,
            "n_fft": network.n_fft,
            "hop": network.hop,
            "precision": self._precision,
        }
        if ACCOMPANIMENT in network.stems:
            params[ACCOMPANIMENT] = f"mixture - {' - '.join(network.estimated)}"
        self.identity = ModelIdentity(name=name, sha256=sha256, params=params)

    def separate(self, segments: Tensor) -> Tensor:
        """``(batch, 2, length)`` float32 at 44.1 kHz → ``(batch, stems, 2, length)`` float32, on ``device``."""
        import torch

        with inference(self._precision, self.device):
            stems = self._module(segments).float()
            if len(self.stems) == self._estimated:
                return stems
            rest = segments - stems.sum(dim=1)
            return torch.cat([stems, rest[:, None]], dim=1)
