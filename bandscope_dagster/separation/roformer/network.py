"""The band-split and the mel-band RoFormer, which estimate a mask of the spectrogram for each stem.

Lu et al., "Music Source Separation with Band-Split RoPE Transformer" (https://arxiv.org/abs/2309.02612), and Wang et
al., "Mel-Band RoFormer for Music Source Separation" (https://arxiv.org/abs/2310.01809). Both differ in their bands:
the first has a list of neighbouring frequencies, the second has triangles of the mel scale that overlap, where masks
are averaged. The second also normalises after each transformer, not once at the end.

The names of the parameters are those of the published checkpoints, which were trained with
ZFTurbo/Music-Source-Separation-Training (MIT), after lucidrains/BS-RoFormer (MIT).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from bandscope_dagster.models.networks import STEREO, RoformerNetwork
from bandscope_dagster.separation.roformer.bands import frequencies_of_bands

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

PARTS: Final = 2  # of a complex number
VALUES: Final = STEREO * PARTS  # of a frequency in one STFT frame


def build_roformer(shape: RoformerNetwork) -> Module:
    """A network with random weights: ``(batch, 2, frames)`` → ``(batch, estimated stems, 2, frames)``."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    mel = shape.bands == "mel"
    bands = frequencies_of_bands(shape)
    widths = [VALUES * len(band) for band in bands]  # values of a band in one STFT frame

    class RMSNorm(nn.Module):
        """Vectors scaled to a root mean square of one, then by a learned factor for each feature."""

        def __init__(self, width: int) -> None:
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(width))

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(x, dim=-1) * (self.gamma * self.gamma.numel() ** 0.5)

    class Rotation(nn.Module):
        """Rotation of pairs of features by an angle that grows with the position (RoPE)."""

        def __init__(self) -> None:
            super().__init__()
            # Also under the device "meta", where a division imports torch's compiler (2 s).
            exponents = torch.arange(0, shape.head_width, 2, device="cpu").float() / shape.head_width
            self.freqs = nn.Parameter(10_000.0**-exponents, requires_grad=False)

        def table(self, positions: int) -> tuple[Tensor, Tensor]:
            """Cosines and sines, ``(positions, 1, head_width / 2)``."""
            angles = torch.arange(positions, device=self.freqs.device)[:, None, None] * self.freqs
            return angles.cos(), angles.sin()

    class Attention(nn.Module):
        """Self-attention whose heads are gated by their input."""

        def __init__(self, rotation: Rotation) -> None:
            super().__init__()
            inner = shape.heads * shape.head_width
            self.rotary_embed = rotation
            self.norm = RMSNorm(shape.width)
            self.to_qkv = nn.Linear(shape.width, 3 * inner, bias=False)
            self.to_gates = nn.Linear(shape.width, shape.heads)
            self.to_out = nn.Sequential(nn.Linear(inner, shape.width, bias=False))

        def forward(self, x: Tensor) -> Tensor:
            """``(sequences, positions, width)`` → same shape."""
            x = self.norm(x)
            query, key, value = self.to_qkv(x).unflatten(-1, (3, shape.heads, -1)).unbind(dim=2)
            table = self.rotary_embed.table(x.shape[1])
            mixed = F.scaled_dot_product_attention(
                rotate(query, *table).transpose(1, 2),
                rotate(key, *table).transpose(1, 2),
                value.transpose(1, 2),
            ).transpose(1, 2)
            return self.to_out((mixed * self.to_gates(x).sigmoid()[..., None]).flatten(2))

    class FeedForward(nn.Module):
        """A perceptron with one hidden layer."""

        def __init__(self) -> None:
            super().__init__()
            width = shape.width
            # The third module is a dropout in the published networks, and counts in the names.
            self.net = nn.Sequential(
                RMSNorm(width),
                nn.Linear(width, 4 * width),
                nn.GELU(),
                nn.Identity(),
                nn.Linear(4 * width, width),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    class Transformer(nn.Module):
        """One attention and one perceptron."""

        def __init__(self, rotation: Rotation) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.ModuleList([Attention(rotation), FeedForward()])])
            self.norm = RMSNorm(shape.width) if mel else nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            for attention, perceptron in self.layers:  # pyright: ignore[reportGeneralTypeIssues]
                x = x + attention(x)
                x = x + perceptron(x)
            return self.norm(x)

    class BandSplit(nn.Module):
        """The features of each band in each STFT frame."""

        def __init__(self) -> None:
            super().__init__()
            self.to_features = nn.ModuleList(
                nn.Sequential(RMSNorm(width), nn.Linear(width, shape.width)) for width in widths
            )

        def forward(self, x: Tensor) -> Tensor:
            """``(batch, STFT frames, values of all bands)`` → ``(batch, STFT frames, bands, width)``."""
            parts = x.split(widths, dim=-1)
            return torch.stack(
                [each(part) for each, part in zip(self.to_features, parts, strict=True)], dim=-2
            )

    class MaskEstimator(nn.Module):
        """The mask of one stem, from the features of each band."""

        def __init__(self) -> None:
            super().__init__()
            self.to_freqs = nn.ModuleList(
                nn.Sequential(perceptron(width), nn.GLU(dim=-1)) for width in widths
            )

        def forward(self, x: Tensor) -> Tensor:
            """``(batch, STFT frames, bands, width)`` → ``(batch, STFT frames, values of all bands)``."""
            return torch.cat(
                [each(band) for each, band in zip(self.to_freqs, x.unbind(dim=-2), strict=True)], dim=-1
            )

    def perceptron(outputs: int) -> nn.Sequential:
        hidden = [shape.width * shape.mask_expansion] * shape.mask_layers
        sizes = [shape.width, *hidden, 2 * outputs]
        layers: list[nn.Module] = []
        for inputs, size in pairwise(sizes):
            layers += [nn.Linear(inputs, size), nn.Tanh()]
        return nn.Sequential(*layers[:-1])

    class Roformer(nn.Module):
        window: Tensor
        chosen: Tensor  # the index in the spectrogram of every value of every band
        uses: Tensor  # the number of bands with each value of the spectrogram

        def __init__(self) -> None:
            super().__init__()
            over_time, over_bands = Rotation(), Rotation()
            self.layers = nn.ModuleList(
                nn.ModuleList([Transformer(over_time), Transformer(over_bands)]) for _ in range(shape.depth)
            )
            self.final_norm = nn.Identity() if mel else RMSNorm(shape.width)
            self.band_split = BandSplit()
            self.mask_estimators = nn.ModuleList(MaskEstimator() for _ in shape.estimated)
            # No parameters of the published networks, so not persistent: the window, and the bands of the mel scale.
            self.register_buffer("window", torch.hann_window(shape.n_fft, device="cpu"), persistent=False)
            chosen = np.concatenate(
                [np.add.outer(np.array(band) * VALUES, np.arange(VALUES)).ravel() for band in bands]
            )
            uses = np.bincount(chosen).astype(np.float32)
            self.register_buffer("chosen", torch.from_numpy(chosen), persistent=False)
            self.register_buffer("uses", torch.from_numpy(uses), persistent=False)

        def forward(self, audio: Tensor) -> Tensor:
            spectrum = torch.stft(
                audio.flatten(0, 1), shape.n_fft, shape.hop, window=self.window, return_complex=True
            ).unflatten(0, (-1, STEREO))
            # (batch, STFT frames, frequencies × channels × parts)
            values = torch.view_as_real(spectrum).permute(0, 3, 2, 1, 4).flatten(2)
            x = self.band_split(values[..., self.chosen] if mel else values)
            for over_time, over_bands in self.layers:  # pyright: ignore[reportGeneralTypeIssues]
                x = along(over_time, x.transpose(1, 2)).transpose(1, 2)
                x = along(over_bands, x)
            x = self.final_norm(x)
            stems = [self.apply_mask(estimator(x).float(), spectrum) for estimator in self.mask_estimators]
            return torch.stack(
                [
                    torch.istft(
                        stem.flatten(0, 1), shape.n_fft, shape.hop, window=self.window, length=audio.shape[-1]
                    ).unflatten(0, (-1, STEREO))
                    for stem in stems
                ],
                dim=1,
            )

        def apply_mask(self, mask: Tensor, spectrum: Tensor) -> Tensor:
            """``mask`` ``(batch, STFT frames, values)`` times ``spectrum`` ``(batch, 2, frequencies, STFT frames)``."""
            if mel:
                summed = mask.new_zeros((*mask.shape[:2], len(self.uses)))
                mask = summed.index_add_(2, self.chosen, mask) / self.uses
            parts = mask.unflatten(2, (-1, STEREO, PARTS)).permute(0, 3, 2, 1, 4).contiguous()
            return spectrum * torch.view_as_complex(parts)

    return Roformer()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate neighbouring pairs of features; ``x`` is ``(sequences, positions, heads, head_width)``."""
    import torch

    first, second = x[..., ::2], x[..., 1::2]
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    return torch.stack(turned, dim=-1).flatten(-2)


def along(module: Module, x: Tensor) -> Tensor:
    """Apply a module of ``(sequences, positions, width)`` along the third axis of a tensor of four."""
    return module(x.flatten(0, 1)).unflatten(0, x.shape[:2])
