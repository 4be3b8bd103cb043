"""Tiny SCNet and RoFormer networks with random weights, and the published inference on a whole song in memory."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pymss_core.modules.bs_roformer import BSRoformer, MelBandRoformer
from pymss_core.modules.scnet import SCNet
from torch.nn import Module

from bandscope_dagster.models.inventory import Model, ModelFile, PublishedFile, find_model
from bandscope_dagster.models.networks import MEL_BANDS, Chunking, Network, RoformerNetwork, ScnetNetwork
from bandscope_dagster.separation.chunked import Chunked, build_module
from bandscope_dagster.separation.options import SeparationOptions

Audio = NDArray[np.float32]

torch.set_num_threads(1)  # as in tiny_demucs.py

FOUR: Final = ("drums", "bass", "other", "vocals")

SCNET: Final = ScnetNetwork(
    stems=FOUR,
    chunks=Chunking(
        frames=2410, overlap=4, normalised=False
    ),  # neither a multiple of the hop nor of the overlap
    channels=(4, 8, 12),
    n_fft=256,
    hop=64,
    band_shares=(0.225, 0.372, 0.403),
    band_strides=(1, 4, 16),
    band_kernels=(3, 4, 16),
    band_depths=(3, 2, 1),
    compression=4,
    time_kernel=3,
    dual_paths=2,
    expansion=1,
)
BAND_SPLIT: Final = RoformerNetwork(
    stems=FOUR,
    chunks=Chunking(frames=1600, overlap=2, normalised=False),
    bands=(2, 3, 4, 8, 16),
    width=16,
    depth=2,
    heads=2,
    head_width=8,
    n_fft=64,
    hop=16,
    mask_layers=1,
    mask_expansion=2,
)
MEL: Final = RoformerNetwork(
    stems=("vocals", "accompaniment"),
    chunks=Chunking(frames=4410, overlap=2, normalised=False),
    bands="mel",
    width=8,
    depth=1,
    heads=2,
    head_width=4,
    n_fft=2048,
    hop=441,
    mask_layers=2,
    mask_expansion=2,
)
TINY: Final[dict[str, Network]] = {"scnet-xl-ihf": SCNET, "bs-roformer": BAND_SPLIT, "mel-band-roformer": MEL}
"""A tiny network for a model of each family."""


def pymss_network(network: Network) -> Module:
    """The same network by pymss-core, with random weights."""
    if isinstance(network, ScnetNetwork):
        return SCNet(
            sources=list(network.stems),
            dims=list(network.channels),
            nfft=network.n_fft,
            hop_size=network.hop,
            win_size=network.n_fft,
            normalized=True,
            band_SR=list(network.band_shares),
            band_stride=list(network.band_strides),
            band_kernel=list(network.band_kernels),
            conv_depths=list(network.band_depths),
            compress=network.compression,
            conv_kernel=network.time_kernel,
            num_dplayer=network.dual_paths,
            expand=network.expansion,
        ).eval()
    common: dict[str, Any] = {
        "dim": network.width,
        "depth": network.depth,
        "stereo": True,
        "num_stems": len(network.estimated),
        "time_transformer_depth": 1,
        "freq_transformer_depth": 1,
        "dim_head": network.head_width,
        "heads": network.heads,
        "flash_attn": True,
        "stft_n_fft": network.n_fft,
        "stft_hop_length": network.hop,
        "stft_win_length": network.n_fft,
        "stft_normalized": False,
        "mlp_expansion_factor": network.mask_expansion,
    }
    if network.bands == "mel":
        # zero_dc is pymss-core's own default for mel bands; the program that trained the published networks lacks it.
        own = {"num_bands": MEL_BANDS, "mlp_hidden_layers": network.mask_layers, "zero_dc": False}
        return MelBandRoformer(**common, **own).eval()
    own = {"freqs_per_bands": network.bands, "mask_estimator_depth": network.mask_layers + 1}
    return BSRoformer(**common, **own).eval()


def random_state(network: Network, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of a network as pymss-core names them, none of them at a special value such as a bias of zero."""
    torch.manual_seed(seed)
    state = pymss_network(network).state_dict()
    return {
        name: tensor if name.endswith("freqs") else tensor + 0.1 * torch.randn(tensor.shape)
        for name, tensor in state.items()
    }


@cache
def ours(network: Network, seed: int = 0) -> Module:
    """Our network with ``random_state``."""
    module = build_module(network).eval()
    module.load_state_dict(random_state(network, seed))
    return module


@cache
def theirs(network: Network, seed: int = 0) -> Callable[[torch.Tensor], torch.Tensor]:
    """pymss-core's network with ``random_state``: ``(batch, 2, n)`` → ``(batch, estimated stems, 2, n)``."""
    module = pymss_network(network)
    module.load_state_dict(random_state(network, seed))

    def forward(audio: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            output = module(audio)
        return output if output.ndim == 4 else output[:, None]

    return forward


def tiny_chunked(network: Network, device: str = "cpu", seed: int = 0, **options: Any) -> Chunked:
    """A separator from the network with ``random_state``; ``options`` as SeparationOptions."""
    module = build_module(network)
    module.load_state_dict(random_state(network, seed))
    return Chunked("tiny", "0" * 64, network, module, device, SeparationOptions(**options))


def published_inference(network: Network, mixture: Audio, seed: int = 0) -> Audio:
    """All stems, ``(stems, 2, frames)``, of a song of zero or more frames; see ``whole_song``."""
    length, overlap = network.chunks.frames, network.chunks.overlap
    estimated = whole_song(theirs(network, seed), torch.from_numpy(mixture), length, overlap).numpy()
    if network.estimated == network.stems:
        return estimated
    return np.concatenate([estimated, (mixture - estimated.sum(axis=0))[None]])


def whole_song(
    network: Callable[[torch.Tensor], torch.Tensor], mixture: torch.Tensor, length: int, overlap: int
) -> torch.Tensor:
    """The inference of ZFTurbo/Music-Source-Separation-Training (``demix``) with one chunk in a batch.

    It is written from that function, step by step and for a whole song in memory, as the definition of our result.
    """
    step, fade, frames = length // overlap, length // 10, mixture.shape[1]
    border = length - step
    extended = frames > 2 * border
    song = torch.nn.functional.pad(mixture, (border, border), mode="reflect") if extended else mixture
    window = torch.ones(length)
    window[:fade] = torch.linspace(0, 1, fade)
    window[-fade:] = torch.linspace(1, 0, fade)
    outputs: list[tuple[int, torch.Tensor, torch.Tensor]] = []
    for start in range(0, song.shape[1], step):
        part = song[:, start : start + length]
        filled = part.shape[1]
        how = "reflect" if filled > length // 2 else "constant"
        output = network(torch.nn.functional.pad(part, (0, length - filled), mode=how)[None])[0]
        weights = window.clone()
        if start == 0:
            weights[:fade] = 1
        elif start + step >= song.shape[1]:
            weights[-fade:] = 1
        outputs.append((start, (output * weights)[..., :filled], weights[:filled]))
    summed = torch.zeros(len(outputs[0][1]), *song.shape)
    weight = torch.zeros(song.shape[1])
    for start, output, weights in outputs:
        summed[..., start : start + output.shape[-1]] += output
        weight[start : start + len(weights)] += weights
    result = (summed / weight).nan_to_num()
    return result[..., border:-border] if extended else result


def checkpoint(network: Network, wrapper: str | None = None, prefix: str = "", seed: int = 0) -> bytes:
    """A pickle as training programs write it: the state, or a dict that has it beside other things."""
    state: Any = {f"{prefix}{name}": tensor for name, tensor in random_state(network, seed).items()}
    stream = io.BytesIO()
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 17}, stream)
    return stream.getvalue()


def tiny_model(name: str, content: bytes) -> Model:
    """The inventory's model ``name`` with its family's tiny network, published as the pickle ``content``."""
    legacy = PublishedFile("tiny.ckpt", len(content), hashlib.sha256(content).hexdigest())
    return replace(
        find_model(name),
        network=TINY[name],
        files=(ModelFile(f"{name}.safetensors", None, None, legacy),),
    )
