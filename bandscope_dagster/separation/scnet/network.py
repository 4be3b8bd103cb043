"""SCNet, which maps the spectrogram of a mixture to those of its stems.

Tong et al., "SCNet: Sparse Compression Network for Music Source Separation", ICASSP 2024
(https://arxiv.org/abs/2401.13276). Three encoders compress the high frequencies more than the low ones, recurrent
layers mix frequencies and time, and three decoders restore the frequencies. The names of the parameters are those of
the published checkpoints (starrytong/SCNet, MIT).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from bandscope_dagster.models.networks import STEREO, ScnetNetwork

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


def build_scnet(shape: ScnetNetwork) -> Module:
    """A network with random weights: ``(batch, 2, frames)`` → ``(batch, stems, 2, frames)``, float32 at 44.1 kHz."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Swish(nn.Module):
        """``x * sigmoid(x)``; a module, because the published names count it."""

        def forward(self, x: Tensor) -> Tensor:
            return F.silu(x)

    class ConvolutionModule(nn.Module):
        """Residual layers over time, alike for every frequency: ``(rows, channels, frames)`` → same shape."""

        def __init__(self, channels: int, depth: int) -> None:
            super().__init__()
            inner, kernel = channels // shape.compression, shape.time_kernel
            self.layers = nn.ModuleList(
                nn.Sequential(
                    nn.GroupNorm(1, channels),
                    nn.Conv1d(channels, 2 * inner, kernel, padding=kernel // 2),
                    nn.GLU(dim=1),
                    nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner),
                    nn.GroupNorm(1, inner),
                    Swish(),
                    nn.Conv1d(inner, channels, 1),
                )
                for _ in range(depth)
            )

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = x + layer(x)
            return x

    class Compression(nn.Module):
        """Convolutions along frequency, one for each band (the paper's "SD layer")."""

        def __init__(self, channels_in: int, channels_out: int) -> None:
            super().__init__()
            self.convs = nn.ModuleList(
                nn.Conv2d(channels_in, channels_out, (kernel, 1), (stride, 1))
                for kernel, stride in zip(shape.band_kernels, shape.band_strides, strict=True)
            )

        def forward(self, x: Tensor) -> tuple[list[Tensor], list[int]]:
            """The compressed bands, and the number of frequencies that each had before."""
            counts = band_sizes(shape, x.shape[2])
            bands: list[Tensor] = []
            for conv, band, kernel, stride in zip(
                self.convs, x.split(counts, dim=2), shape.band_kernels, shape.band_strides, strict=True
            ):
                missing = kernel - 1 if stride == 1 else -band.shape[2] % stride
                bands.append(conv(F.pad(band, (0, 0, missing // 2, missing - missing // 2))))
            return bands, counts

    class Encoder(nn.Module):
        """A compression, residual layers in each band, and a convolution over all bands."""

        def __init__(self, channels_in: int, channels_out: int) -> None:
            super().__init__()
            self.SDlayer = Compression(channels_in, channels_out)
            self.conv_modules = nn.ModuleList(
                ConvolutionModule(channels_out, depth) for depth in shape.band_depths
            )
            self.globalconv = nn.Conv2d(channels_out, channels_out, 3, padding=1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[int], list[int]]:
            """The output, the bands for the decoder, and their numbers of frequencies: now, and before."""
            bands, before = self.SDlayer(x)
            bands = [
                F.gelu(by_row(module, band)) for module, band in zip(self.conv_modules, bands, strict=True)
            ]
            joined = torch.cat(bands, dim=2)
            return self.globalconv(joined), joined, [band.shape[2] for band in bands], before

    class Fusion(nn.Module):
        """The sum of a decoder's input and its encoder's bands, convolved and gated."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)

        def forward(self, x: Tensor, skip: Tensor) -> Tensor:
            # The published layer reads every channel twice; adding the weights of both copies gives the same sums with
            # half of the products.
            first, second = self.conv.weight.chunk(2, dim=1)
            return F.glu(F.conv2d(x + skip, first + second, self.conv.bias, padding=1), dim=1)

    class Expansion(nn.Module):
        """Transposed convolutions along frequency, one for each band (the paper's "SU layer")."""

        def __init__(self, channels_in: int, channels_out: int) -> None:
            super().__init__()
            self.convtrs = nn.ModuleList(
                nn.ConvTranspose2d(channels_in, channels_out, (kernel, 1), (stride, 1))
                for kernel, stride in zip(shape.band_kernels, shape.band_strides, strict=True)
            )

        def forward(self, x: Tensor, sizes: list[int], wanted: list[int]) -> Tensor:
            """Bands of ``sizes`` frequencies → bands of ``wanted`` frequencies, joined."""
            bands: list[Tensor] = []
            for conv, band, frequencies in zip(self.convtrs, x.split(sizes, dim=2), wanted, strict=True):
                expanded = conv(band)
                start = (expanded.shape[2] - frequencies) // 2
                bands.append(expanded[:, :, start : start + frequencies])
            return torch.cat(bands, dim=2)

    class DualPath(nn.Module):
        """An LSTM over the frequencies of every frame, then one over the frames of every frequency."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            units = channels * shape.expansion
            self.lstm_layers = nn.ModuleList(
                nn.LSTM(channels, units, batch_first=True, bidirectional=True) for _ in range(2)
            )
            self.linear_layers = nn.ModuleList(nn.Linear(2 * units, channels) for _ in range(2))
            self.norm_layers = nn.ModuleList(nn.GroupNorm(1, channels) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            """``(batch, channels, frequencies, frames)`` → same shape."""
            batch, _, frequencies, frames = x.shape
            rows = self.norm_layers[0](x).permute(0, 3, 2, 1).flatten(0, 1)
            mixed = self.linear_layers[0](self.lstm_layers[0](rows)[0])
            x = x + mixed.unflatten(0, (batch, frames)).permute(0, 3, 2, 1)
            rows = self.norm_layers[1](x).permute(0, 2, 3, 1).flatten(0, 1)
            mixed = self.linear_layers[1](self.lstm_layers[1](rows)[0])
            return x + mixed.unflatten(0, (batch, frequencies)).permute(0, 3, 1, 2)

    class Separation(nn.Module):
        """Dual paths, of which every second one works on the Fourier transform over time."""

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.dp_modules = nn.ModuleList(
                DualPath(channels * (1 + index % 2)) for index in range(shape.dual_paths)
            )

        def forward(self, x: Tensor) -> Tensor:
            for index, dual_path in enumerate(self.dp_modules):
                x = dual_path(x).float()  # half precision has no Fourier transform of every length
                if index % 2 == 0:
                    transformed = torch.fft.rfft(x, dim=3, norm="ortho")
                    x = torch.cat([transformed.real, transformed.imag], dim=1)
                else:
                    x = torch.fft.irfft(torch.complex(*x.chunk(2, dim=1)), dim=3, norm="ortho")
            return x

    class Scnet(nn.Module):
        window: Tensor

        def __init__(self) -> None:
            super().__init__()
            pairs = list(pairwise(shape.channels))
            outputs = [shape.channels[0] * len(shape.stems), *shape.channels[1:-1]]
            self.encoder = nn.ModuleList(Encoder(*pair) for pair in pairs)
            self.decoder = nn.ModuleList(
                nn.Sequential(Fusion(inner), Expansion(inner, outer))
                for outer, (_, inner) in reversed(list(zip(outputs, pairs, strict=True)))
            )
            self.separation_net = Separation(shape.channels[-1])
            # The published networks have a rectangular window. It is no parameter of theirs.
            self.register_buffer("window", torch.ones(shape.n_fft, device="cpu"), persistent=False)

        def forward(self, audio: Tensor) -> Tensor:
            frames = audio.shape[-1]
            padded = F.pad(audio, (0, padding(shape, frames)))
            x = self.spectrum(padded)
            kept: list[tuple[Tensor, list[int], list[int]]] = []
            for encoder in self.encoder:
                x, bands, sizes, before = encoder(x)
                kept.append((bands, sizes, before))
            x = self.separation_net(x)
            for fusion, expansion in self.decoder:  # pyright: ignore[reportGeneralTypeIssues]
                bands, sizes, before = kept.pop()
                x = expansion(fusion(x, bands), sizes, before)
            return self.audio(x.float())[..., :frames]

        def spectrum(self, audio: Tensor) -> Tensor:
            """``(batch, 2, frames)`` → ``(batch, 4, frequencies, STFT frames)``: real and imaginary of each channel."""
            spectrum = torch.stft(
                audio.flatten(0, 1),
                shape.n_fft,
                shape.hop,
                window=self.window,
                normalized=True,
                return_complex=True,
            )
            return torch.view_as_real(spectrum).permute(0, 3, 1, 2).unflatten(0, (-1, STEREO)).flatten(1, 2)

        def audio(self, x: Tensor) -> Tensor:
            """``(batch, 4 × stems, frequencies, STFT frames)`` → ``(batch, stems, 2, frames)``."""
            parts = x.unflatten(1, (-1, 2)).permute(0, 1, 3, 4, 2).contiguous()
            spectrum = torch.view_as_complex(parts).flatten(0, 1)
            audio = torch.istft(spectrum, shape.n_fft, shape.hop, window=self.window, normalized=True)
            return audio.unflatten(0, (len(x), len(shape.stems), STEREO))

    return Scnet()


def by_row(module: Module, band: Tensor) -> Tensor:
    """Apply a module of ``(rows, channels, frames)`` to ``(batch, channels, frequencies, frames)``, by frequency."""
    rows = band.transpose(1, 2)
    return module(rows.flatten(0, 1)).unflatten(0, rows.shape[:2]).transpose(1, 2)


def band_sizes(shape: ScnetNetwork, frequencies: int) -> list[int]:
    """The number of frequencies in the low, middle and high band; the shares are rounded up at each border."""
    low = math.ceil(frequencies * shape.band_shares[0])
    middle = math.ceil(frequencies * (shape.band_shares[0] + shape.band_shares[1]))
    return [low, middle - low, frequencies - middle]


def padding(shape: ScnetNetwork, frames: int) -> int:
    """Frames of silence at the end: at least one, and an even number of STFT frames for the Fourier transform."""
    hops = frames // shape.hop + 1
    return (hops + 1 - hops % 2) * shape.hop - frames
