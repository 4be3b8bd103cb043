"""Tiny HTDemucs networks with random weights: demucs's own class, a thousandth of the real size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from demucs.apply import BagOfModels, apply_model
from demucs.htdemucs import HTDemucs
from demucs.transformer import LayerScale
from safetensors.torch import save

from bandscope_dagster.separation.demucs.model import CLASS, Demucs
from bandscope_dagster.separation.options import SeparationOptions

FOUR = ("drums", "bass", "other", "vocals")
SIX = (*FOUR, "guitar", "piano")
SEGMENT = 8192  # frames; 0.19 s


torch.set_num_threads(
    1
)  # for so little work a second thread gains nothing, and on a busy machine it is much slower


def tiny_network(seed: int = 0, sources: Sequence[str] = FOUR, segment: int = SEGMENT) -> HTDemucs:
    """A network with a segment of ``segment`` frames at 44.1 kHz; each seed gives other weights.

    Its residual branches and its transformer have as much weight as in a trained network. A fresh network scales them
    by 1e-4, which would hide errors in them.
    """
    torch.manual_seed(seed)
    network = HTDemucs(
        sources=list(sources),
        segment=Fraction(segment, 44_100),
        channels=8,
        nfft=1024,
        bottom_channels=16,
        t_layers=2,  # one of self-attention, one across spectrogram and waveform
        t_heads=2,
        t_hidden_scale=2.0,
        dconv_mode=3,
        dconv_depth=1,
    ).eval()
    for layer in network.modules():
        if isinstance(layer, LayerScale):
            layer.scale.data.uniform_(0.5, 1.0)
    return network


def tiny_demucs(
    *networks: HTDemucs, weights: Sequence[Sequence[float]] | None = None, **options: Any
) -> Demucs:
    """A separator from these networks (default: one with four stems) on the CPU; ``options`` as SeparationOptions."""
    chosen = networks or (tiny_network(),)
    return Demucs("tiny", "0" * 64, chosen, "cpu", SeparationOptions(**options), weights)


def reference(
    mixture: torch.Tensor,
    *networks: HTDemucs,
    weights: Sequence[Sequence[float]] | None = None,
    **options: Any,
) -> torch.Tensor:
    """The stems ``(stems, 2, frames)`` that demucs itself separates from ``(2, frames)``."""
    chosen = list(networks) or [tiny_network()]
    model = chosen[0] if len(chosen) == 1 and weights is None else BagOfModels(chosen, weights)
    settings = {"shifts": 0, "split": True, "overlap": 0.25} | options
    return apply_model(model, mixture[None], **settings)[0]


def safetensors_file(network: HTDemucs, klass: str = CLASS) -> bytes:
    """A network's file, in the layout that ``demucs.hf.load_safetensors_model`` reads."""

    def encode(value: object) -> dict[str, Any]:
        assert isinstance(value, Fraction), value
        return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}

    args, kwargs = network._init_args_kwargs
    metadata = {
        "klass": klass,
        "args": json.dumps(args, default=encode),
        "kwargs": json.dumps(kwargs, default=encode),
    }
    return save({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, metadata)
