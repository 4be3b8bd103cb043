"""The embedded tagger: MusiCNN, trained on MagnaTagATune, as a torch module for windows of 3 s.

Pons et al., "End-to-end learning for music audio tagging at scale", ISMIR 2018; Pons & Serra, "musicnn:
pre-trained convolutional neural networks for music audio tagging", 2019. Layers, constants and the order of the
tags are those of the authors' release, musicnn 0.1.0 (``models.py``, ``configuration.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.store import EMBEDDED, read_verified
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.protocol import Heard, ScoredLabels, WindowPlan

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "musicnn"

SAMPLE_RATE = 16_000  # Hz
N_FFT = 512  # frames
HOP = 256  # frames
MEL_BANDS = 96
PATCH = 187  # mel frames in the network's input: 3 s
POOLED = 2 * 753  # features after pooling over time
BATCH_NORM_EPS = 1e-3  # TensorFlow's default; torch's is 1e-5
CPU_BATCH = 1  # window; larger ones lose their gain to page faults, and rounding depends on the position
ACCELERATOR_BATCH = 32  # windows

# In the order of the network's output. The synonyms and negations come from the dataset.
TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano",
    "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing",
    "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop",
    "soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice",
    "female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice",
    "choral",
)  # fmt: skip

# The tags that name an instrument or a voice, without negations: "no vocals" names nothing that is heard.
INSTRUMENT_TAGS = (
    "guitar", "strings", "drums", "beat", "beats", "piano", "violin", "synth", "harpsichord", "flute",
    "sitar", "harp", "cello", "choir", "choral", "vocal", "vocals", "singing", "voice", "male", "female",
    "man", "woman", "male vocal", "female vocal", "male voice", "female voice", "opera",
)  # fmt: skip
_INSTRUMENT_COLUMNS = [TAGS.index(tag) for tag in INSTRUMENT_TAGS]

# The original cuts a whole song into centred frames. The 187 frames of its patch k, one every 256 samples, see the same
# samples as uncentred frames of window k with half an FFT before it.
PLAN = WindowPlan(sample_rate=SAMPLE_RATE, length=PATCH * HOP, hop=PATCH * HOP, lead=N_FFT // 2)


def mel_filters(n_fft: int = N_FFT) -> NDArray[np.float32]:
    """``(MEL_BANDS, n_fft // 2 + 1)`` triangles on Slaney's mel scale, each of area 1, as librosa's default.

    Slaney, "Auditory Toolbox", 1998: 200/3 Hz a mel below 1 kHz, and above it 27 mels for a factor of 6.4.
    """
    break_hz, hz_per_mel, log_step = 1000.0, 200 / 3, np.log(6.4) / 27
    break_mel = break_hz / hz_per_mel
    top_mel = break_mel + np.log(SAMPLE_RATE / 2 / break_hz) / log_step
    mels = np.linspace(0.0, top_mel, MEL_BANDS + 2)
    edges = np.where(mels < break_mel, mels * hz_per_mel, break_hz * np.exp(log_step * (mels - break_mel)))

    bins = np.linspace(0, SAMPLE_RATE / 2, n_fft // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32)


def mel_power(samples: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    """``(batch, samples)`` → ``(batch, frames, bands)``: one frame every ``HOP`` samples, none beyond the ends.

    ``window`` is ``(n_fft,)``; ``filters`` is ``(bands, n_fft // 2 + 1)``, as from ``mel_filters(n_fft)``.
    """
    import torch

    spectrum = torch.stft(samples, len(window), HOP, window=window, center=False, return_complex=True)
    return (filters @ spectrum.abs().square()).transpose(1, 2)


def build_network() -> nn.Module:
    """The network with random weights: ``(batch, lead + length)`` samples → ``(batch, 50)`` probabilities."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        """Convolution, ReLU, batch normalisation, in this order; the length in time stays the same."""

        def __init__(self, channels_in: int, channels_out: int, kernel: tuple[int, int]) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels_in, channels_out, kernel)
            self.bn = nn.BatchNorm2d(channels_out, eps=BATCH_NORM_EPS)
            before = (kernel[0] - 1) // 2
            self.time_padding = (0, 0, before, kernel[0] - 1 - before)

        def forward(self, features: Tensor) -> Tensor:
            """``(batch, channels_in, time, bands)`` → ``(batch, channels_out, time, fewer bands)``."""
            return self.bn(functional.relu_(self.conv(functional.pad(features, self.time_padding))))

    class Network(nn.Module):
        """Log-mel front end, timbral and temporal filters, three residual layers, pooling over time."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
            self.register_buffer("filters", torch.from_numpy(mel_filters()), persistent=False)
            self.bn_in = nn.BatchNorm2d(1, eps=BATCH_NORM_EPS)
            # Timbre: tall filters over 40 % and 70 % of the bands. Time: long filters over one band.
            timbral, temporal, mid = 204, 51, 64  # channels
            heights = (int(0.4 * MEL_BANDS), int(0.7 * MEL_BANDS))
            self.timbral = nn.ModuleList(Block(1, timbral, (7, height)) for height in heights)
            self.temporal = nn.ModuleList(Block(1, temporal, (frames, 1)) for frames in (128, 64, 32))
            front = len(self.timbral) * timbral + len(self.temporal) * temporal
            self.mid = nn.ModuleList(Block(1, mid, (7, width)) for width in (front, mid, mid))
            self.bn_pool = nn.BatchNorm1d(POOLED, eps=BATCH_NORM_EPS)
            self.dense = nn.Linear(POOLED, 200)
            self.bn_dense = nn.BatchNorm1d(200, eps=BATCH_NORM_EPS)
            self.out = nn.Linear(200, len(TAGS))

        def log_mel(self, samples: Tensor) -> Tensor:
            """``(batch, lead + length)`` samples → ``(batch, PATCH, MEL_BANDS)``."""
            power = mel_power(samples, cast("Tensor", self.window), cast("Tensor", self.filters))
            # The original converts to half precision before the logarithm, and 10000 × power overflows.
            return torch.log10(1 + 10_000 * power)

        def pooled(self, log_mel: Tensor) -> Tensor:
            """``(batch, PATCH, MEL_BANDS)`` → ``(batch, POOLED)``: normalised maxima and means over time."""
            patch = self.bn_in(log_mel[:, None])  # (batch, 1, time, bands)
            shapes = [block(patch).amax(3) for block in (*self.timbral, *self.temporal)]
            features = torch.cat(shapes, 1).transpose(1, 2)  # (batch, time, front)

            layers = [features]
            for number, block in enumerate(self.mid):
                layer = block(layers[-1][:, None])[..., 0].transpose(1, 2)  # (batch, time, mid)
                layers.append(layer if number == 0 else layer + layers[-1])
            sequence = torch.cat(layers, 2)
            # TensorFlow flattens (channels, [max, mean]), so the two alternate.
            return self.bn_pool(torch.stack([sequence.amax(1), sequence.mean(1)], 2).flatten(1))

        def logits(self, pooled: Tensor) -> Tensor:
            """``(batch, POOLED)`` → ``(batch, 50)``."""
            return self.out(self.bn_dense(functional.relu(self.dense(pooled))))

        def forward(self, samples: Tensor) -> Tensor:
            """``(batch, lead + length)`` mono samples → ``(batch, 50)`` probabilities."""
            return torch.sigmoid(self.logits(self.pooled(self.log_mel(samples))))

    return Network()


class Musicnn:
    """The ``Tagger`` with MusiCNN: its instrument and voice tags. Weights are verified before they are read."""

    plan = PLAN
    fixed_batch = True

    def __init__(self, device: str, options: TaggingOptions | None = None) -> None:
        """``device`` is a device of torch that exists: "cpu", "cuda", "cuda:1", "mps".

        Raises:
            SettingsError: an option is set that the network does not have; its windows are always 3 s.
        """
        from safetensors.torch import load

        options = options or TaggingOptions()
        options.refuse("window_s", "hop_s", "mode", tagger=NAME)
        model = find_model(NAME)
        verified = read_verified(model, EMBEDDED)
        weights = load(verified.files[model.files[0].name])
        network = build_network()
        network.load_state_dict(weights, strict=True)
        self._network = network.eval().to(device)
        self.device = device
        self.batch = options.batch or (CPU_BATCH if device == "cpu" else ACCELERATOR_BATCH)
        self.identity = ModelIdentity(
            name=NAME,
            sha256=verified.sha256,
            params={
                "sample_rate": SAMPLE_RATE,
                "n_fft": N_FFT,
                "hop": HOP,
                "mel_bands": MEL_BANDS,
                "window_frames": PLAN.length,
                "window_hop": PLAN.hop,
                "labels": list(INSTRUMENT_TAGS),
            },
        )

    def taggram(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(batch, lead + length)`` mono float32 in [-1, 1] → ``(batch, 50)`` probabilities of ``TAGS``."""
        import torch

        PLAN.check(windows, NAME)
        with torch.inference_mode():
            probabilities = self._network(torch.from_numpy(windows).to(self.device))
        return probabilities.cpu().numpy()

    def tag(self, windows: NDArray[np.float32]) -> list[Heard]:
        """``(batch, lead + length)`` mono float32 in [-1, 1] → the scores of all instrument tags in each window."""
        return [
            Heard(ScoredLabels(INSTRUMENT_TAGS, scores[_INSTRUMENT_COLUMNS]))
            for scores in self.taggram(windows)
        ]
