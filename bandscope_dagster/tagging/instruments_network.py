"""The network of the embedded tagger: instruments and voices in windows of 3 s, 16 kHz mono.

A stand-in with the interface of the trained network: a log-mel front end and a small convolutional network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASSES: Final = (
    "piano", "electric piano", "organ", "accordion", "harmonica", "acoustic guitar", "electric guitar",
    "distorted guitar", "banjo", "mandolin", "harp", "bass guitar", "double bass", "synth bass", "violin", "cello",
    "string section", "trumpet", "trombone", "french horn", "tuba", "brass section", "saxophone", "flute",
    "clarinet", "oboe", "bassoon", "recorder", "mallets", "bells", "harpsichord", "synth lead", "synth pad",
    "drums", "percussion", "singing voice", "speech", "choir",
)  # fmt: skip
"""The labels, in the order of the network's outputs."""

SAMPLE_RATE: Final = 16_000  # Hz
N_FFT: Final = 512  # frames
HOP: Final = 256  # frames
MEL_BANDS: Final = 96
LENGTH: Final = 187 * HOP  # frames of a window: 3 s
LEAD: Final = N_FFT // 2  # frames before the window that the network also gets

FRONT_END: Final = {"n_fft": N_FFT, "hop": HOP, "mel_bands": MEL_BANDS}
"""Constants of the code on which the output depends; the lineage of tags has them."""


def build_network() -> nn.Module:
    """The network with random weights: ``(batch, LEAD + LENGTH)`` samples → ``(batch, classes)`` logits.

    It levels each window itself, so the loudness of a song does not matter.
    """
    import torch
    from torch import nn

    from bandscope_dagster.tagging.musicnn import mel_filters

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
            self.register_buffer("filters", torch.from_numpy(mel_filters()), persistent=False)
            self.layers = nn.Sequential(
                nn.Conv2d(1, 16, 5, stride=3), nn.ReLU(), nn.Conv2d(16, 32, 5, stride=3), nn.ReLU()
            )
            self.out = nn.Linear(64, len(CLASSES))

        def forward(self, samples: Tensor) -> Tensor:
            window, filters = cast("Tensor", self.window), cast("Tensor", self.filters)
            level = samples.square().mean(1, keepdim=True).sqrt().clamp_min(1e-5)
            spectrum = torch.stft(
                samples / level * 0.1, N_FFT, HOP, window=window, center=False, return_complex=True
            )
            features = self.layers(torch.log10(1 + 10_000 * (filters @ spectrum.abs().square()))[:, None])
            return self.out(torch.cat([features.amax((2, 3)), features.mean((2, 3))], 1))

    return Network()
