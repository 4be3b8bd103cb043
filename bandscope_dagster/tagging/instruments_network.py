"""The network of the embedded tagger: 38 instruments and voices in windows of 3 s.

Two branches hear the same window. The trunk is MusiCNN without its last layer (``musicnn.py``), which was trained on
26,000 real clips and is left as it is; a small perceptron reads its features. The ear is a residual network over
log-mel patches of twice the frequency resolution. Perceptron and ear were trained on rendered mixtures, by
``training/`` in the repository. The logit of a class is a weighted sum of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from bandscope_dagster.tagging import musicnn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

CLASSES: Final = (
    "piano", "electric piano", "organ", "accordion", "harmonica", "acoustic guitar", "electric guitar",
    "distorted guitar", "banjo", "mandolin", "harp", "bass guitar", "double bass", "synth bass", "violin", "cello",
    "string section", "trumpet", "trombone", "french horn", "tuba", "brass section", "saxophone", "flute",
    "clarinet", "oboe", "bassoon", "recorder", "mallets", "bells", "harpsichord", "synth lead", "synth pad",
    "drums", "percussion", "singing voice", "speech", "choir",
)  # fmt: skip
"""The labels, in the order of the network's outputs."""

SAMPLE_RATE: Final = musicnn.SAMPLE_RATE  # Hz, mono
HOP: Final = musicnn.HOP  # frames
LENGTH: Final = musicnn.PLAN.length  # frames of a window
LEAD: Final = musicnn.PLAN.lead  # frames before it
MEL_BANDS: Final = musicnn.MEL_BANDS

TRUNK_FRAMES: Final = musicnn.PATCH  # mel frames in a window
TRUNK_MEAN: Final = 0.25  # mel power, the mean of a window after levelling; about that of music at −20 dBFS
EAR_FFT: Final = 1024  # frames
EAR_FRAMES: Final = (LEAD + LENGTH - EAR_FFT) // HOP + 1
EAR_RANGE_DB: Final = 80.0  # below the loudest value of a window
QUIETEST: Final = 1e-7  # mel power; a quieter window is not raised to the level of the others
HIDDEN: Final = 384  # units of the perceptron
WIDTHS: Final = (24, 40, 80, 160, 256)  # channels of the ear

FRONT_END: Final = {
    "trunk_n_fft": musicnn.N_FFT,
    "trunk_mean": TRUNK_MEAN,
    "ear_n_fft": EAR_FFT,
    "ear_range_db": EAR_RANGE_DB,
    "hop": HOP,
    "mel_bands": MEL_BANDS,
    "quietest": QUIETEST,
}
"""Constants of the code on which the output depends; the lineage of tags has them."""


def trunk_input(power: Tensor) -> Tensor:
    """Mel power ``(batch, TRUNK_FRAMES, MEL_BANDS)`` → MusiCNN's compression, at one level for all windows."""
    import torch

    mean = power.mean((1, 2), keepdim=True).clamp_min(QUIETEST)
    return torch.log10(1 + 10_000 * (power * (TRUNK_MEAN / mean)))


def ear_input(power: Tensor) -> Tensor:
    """Mel power ``(batch, EAR_FRAMES, MEL_BANDS)`` → decibels below the loudest value, scaled to [-2, 2]."""
    import torch

    loudest = power.amax((1, 2), keepdim=True).clamp_min(QUIETEST)
    decibels = 10 * torch.log10((power / loudest).clamp_min(10 ** (-EAR_RANGE_DB / 10)))
    return decibels / (EAR_RANGE_DB / 4) + 2


def build_perceptron() -> nn.Module:
    """``(batch, trunk's features)`` → ``(batch, classes)`` logits."""
    from torch import nn

    return nn.Sequential(
        nn.Dropout(0.3),
        nn.Linear(musicnn.POOLED + len(musicnn.TAGS), HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(HIDDEN, len(CLASSES)),
    )


def build_ear() -> nn.Module:
    """``(batch, EAR_FRAMES, MEL_BANDS)`` → ``(batch, classes)`` logits."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        """Two convolutions of 3 × 3 around a shortcut (He et al., "Deep residual learning", CVPR 2016)."""

        def __init__(self, channels_in: int, channels_out: int, stride: int | tuple[int, int]) -> None:
            super().__init__()
            self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
            self.bn_first = nn.BatchNorm2d(channels_out)
            self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
            self.bn_second = nn.BatchNorm2d(channels_out)
            same = channels_in == channels_out and stride == 1
            self.shortcut = (
                nn.Identity()
                if same
                else nn.Sequential(
                    nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
                )
            )

        def forward(self, features: Tensor) -> Tensor:
            hidden = functional.relu(self.bn_first(self.first(features)))
            return functional.relu(self.bn_second(self.second(hidden)) + self.shortcut(features))

    class Ear(nn.Module):
        """Five stages; then means and maxima over time of the lower and the upper half of the bands."""

        def __init__(self) -> None:
            super().__init__()
            first, second, third, fourth, last = WIDTHS
            self.stem = nn.Sequential(
                nn.Conv2d(1, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU()
            )
            self.body = nn.Sequential(
                Block(first, second, 2),
                Block(second, third, 2),
                Block(third, third, 1),
                Block(third, fourth, 2),
                Block(fourth, fourth, 1),
                Block(fourth, last, (2, 1)),
            )
            self.head = nn.Sequential(
                nn.Dropout(0.2),
                nn.Linear(4 * last, 256),
                nn.ReLU(),
                nn.Dropout(0.3),
                nn.Linear(256, len(CLASSES)),
            )

        def forward(self, patch: Tensor) -> Tensor:
            hidden = self.body(self.stem(patch[:, None]))  # (batch, channels, time, bands)
            half = hidden.shape[3] // 2
            halves = torch.cat([hidden[..., :half].mean(3), hidden[..., half:].mean(3)], 1)
            return self.head(torch.cat([halves.mean(2), halves.amax(2)], 1))

    return Ear()


def build_network() -> nn.Module:
    """The network with random weights: ``(batch, LEAD + LENGTH)`` mono samples → ``(batch, classes)`` logits."""
    import torch
    from torch import nn

    class Network(nn.Module):
        """Both branches and their weights."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk = musicnn.build_network()
            features = musicnn.POOLED + len(musicnn.TAGS)
            self.register_buffer("feature_mean", torch.zeros(features))
            self.register_buffer("feature_scale", torch.ones(features))
            self.perceptron = build_perceptron()
            self.ear = build_ear()
            self.register_buffer("branch_weights", torch.full((2, len(CLASSES)), 0.5))
            self.register_buffer("ear_window", torch.hann_window(EAR_FFT), persistent=False)
            self.register_buffer(
                "ear_filters", torch.from_numpy(musicnn.mel_filters(EAR_FFT)), persistent=False
            )

        def trunk_power(self, samples: Tensor) -> Tensor:
            """``(batch, samples)`` → mel power ``(batch, frames, MEL_BANDS)`` for the trunk."""
            window, filters = cast("Tensor", self.trunk.window), cast("Tensor", self.trunk.filters)
            return musicnn.mel_power(samples, window, filters)

        def ear_power(self, samples: Tensor) -> Tensor:
            """``(batch, samples)`` → mel power ``(batch, frames, MEL_BANDS)`` for the ear."""
            window, filters = cast("Tensor", self.ear_window), cast("Tensor", self.ear_filters)
            return musicnn.mel_power(samples, window, filters)

        def features(self, power: Tensor) -> Tensor:
            """Mel power ``(batch, TRUNK_FRAMES, MEL_BANDS)`` → the trunk's features, unscaled."""
            pool = cast("Callable[[Tensor], Tensor]", self.trunk.pooled)
            judge = cast("Callable[[Tensor], Tensor]", self.trunk.logits)
            pooled = pool(trunk_input(power))
            return torch.cat([pooled, judge(pooled)], 1)

        def judge(self, features: Tensor) -> Tensor:
            """The trunk's features → ``(batch, classes)`` logits of the perceptron."""
            mean, scale = cast("Tensor", self.feature_mean), cast("Tensor", self.feature_scale)
            return self.perceptron(((features - mean) * scale).clamp(-6, 6))

        def forward(self, samples: Tensor) -> Tensor:
            """``(batch, LEAD + LENGTH)`` → ``(batch, classes)`` logits."""
            weights = cast("Tensor", self.branch_weights)
            by_trunk = self.judge(self.features(self.trunk_power(samples)))
            by_ear = self.ear(ear_input(self.ear_power(samples)))
            return weights[0] * by_trunk + weights[1] * by_ear

    return Network()
