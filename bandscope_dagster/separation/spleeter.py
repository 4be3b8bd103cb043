"""The Spleeter 2-stems model in plain torch: vocals and accompaniment, by a ratio mask from two U-Nets.

Architecture: Jansson et al., "Singing voice separation with deep U-Net convolutional networks", ISMIR 2017.
Weights and signal path: Hennequin et al., "Spleeter: a fast and efficient music source separation tool with
pre-trained models", JOSS 5(50), 2020; constants as in deezer/spleeter, ``spleeter/model`` and
``resources/2stems.json`` (MIT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.models.store import EMBEDDED, read_verified
from bandscope_dagster.separation.options import SeparationOptions
from bandscope_dagster.separation.protocol import SegmentPlan

if TYPE_CHECKING:
    from torch import Tensor

NAME = "spleeter-2stems"
N_FFT = 4096  # samples; periodic Hann window in analysis and synthesis
HOP = 1024  # samples
BINS = 1024  # of 2049: the input of the nets and the range of the masks, up to 11 kHz
SEGMENT_FRAMES = 512  # STFT frames in one input of a net
WINDOW_COMPENSATION = 2 / 3  # the squared Hann windows sum to 3/2 at a hop of a quarter
MASK_EPSILON = 1e-10
LEVELS = 6  # down, and up again
LEAKY_SLOPE = 0.2  # of the encoder's leaky ReLU
BATCH_NORM_EPSILON = 1e-3  # Keras's default, with which the nets were trained

Weights = dict[str, "Tensor"]


def unet(weights: Weights, magnitude: Tensor) -> Tensor:
    """One net: magnitudes ``(batch, 2, 512 frames, 1024 bins)`` → the stem's magnitudes, same shape, ≥ 0."""
    import torch
    from torch.nn import functional as F

    def batch_norm(x: Tensor, name: str) -> Tensor:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.batch_norm(x, mean, variance, scale, shift, eps=BATCH_NORM_EPSILON)

    # Results are freed after their last use, and activations overwrite their input: half the memory, fewer passes.
    skips: list[Tensor] = []
    x = magnitude
    for level in range(LEVELS):
        # TensorFlow's "same" padding for kernel 5, stride 2 and even input is uneven: one before, two after.
        padded = F.pad(x, (1, 2, 1, 2))
        x = F.conv2d(padded, weights[f"enc.{level}.weight"], weights[f"enc.{level}.bias"], stride=2)
        del padded
        skips.append(x)
        if level < LEVELS - 1:
            x = F.leaky_relu_(batch_norm(x, f"enc_bn.{level}"), LEAKY_SLOPE)

    x = skips.pop()
    for level in range(LEVELS):
        if level:
            x = torch.cat([skips.pop(), x], dim=1)
        x = F.conv_transpose2d(
            x, weights[f"dec.{level}.weight"], weights[f"dec.{level}.bias"], stride=2, padding=1
        )
        # As trained, the ReLU comes before the normalisation. The cut completes the uneven "same" padding.
        x = batch_norm(F.relu_(x)[:, :, :-1, :-1], f"dec_bn.{level}")

    x = F.conv2d(x, weights["head.weight"], weights["head.bias"], dilation=2, padding=3)
    return x.sigmoid_().mul_(magnitude)


def overlap_add(frames: Tensor) -> Tensor:
    """``(signals, 4096, frames)`` → ``(signals, samples)``, one frame every 1024 samples."""
    signals, _, count = frames.shape
    hops = N_FFT // HOP
    quarters = frames.transpose(1, 2).reshape(signals, count, hops, HOP)
    out = frames.new_zeros((signals, count + hops - 1, HOP))
    for quarter in range(hops):
        out[:, quarter : quarter + count] += quarters[:, :, quarter]
    return out.flatten(1)


class Spleeter:
    """The embedded separator: two stems in a tenth of real time on one CPU core.

    A segment is 512 STFT frames, one input of the nets. Its output includes the synthesis window, so the outputs of a
    song are simply added. The accompaniment is the mixture minus the vocals: the model's own second mask is zero above
    11 kHz and would lose that range.
    """

    stems: tuple[str, ...] = ("vocals", "accompaniment")
    # Spleeter puts a window of silence before the song, so that its first samples are in four frames too.
    plan = SegmentPlan(length=(SEGMENT_FRAMES - 1) * HOP + N_FFT, stride=SEGMENT_FRAMES * HOP, leads=(N_FFT,))
    shorter_plans: tuple[SegmentPlan, ...] = ()  # the nets take exactly 512 frames
    normalised = False

    def __init__(self, device: str, options: SeparationOptions) -> None:
        """Load the verified weights to ``device``, which must exist: "cpu", "cuda", "cuda:1", "mps".

        Raises:
            SettingsError: an option is set that this model does not have.
        """
        import torch

        options.refuse("shifts", "overlap", "segment_s", "precision", model=NAME)
        from safetensors.torch import load

        model = find_model(NAME)
        verified = read_verified(model, EMBEDDED)
        weights = load(verified.files[model.files[0].name])
        self.identity = ModelIdentity(
            name=NAME,
            sha256=verified.sha256,
            params={
                "sample_rate": SAMPLE_RATE,
                "n_fft": N_FFT,
                "hop": HOP,
                "bins": BINS,
                "segment_frames": SEGMENT_FRAMES,
                "accompaniment": "mixture - vocals",
            },
            files=verified.digests,
        )
        # A second segment gains nothing on a CPU and takes 150 MB more; it fills an accelerator better.
        self.batch = options.batch or (1 if device == "cpu" else 8)
        self.device = device
        self._nets = {
            stem: {
                name.removeprefix(f"nets.{stem}."): _prepare_weight(tensor, device)
                for name, tensor in weights.items()
                if name.startswith(f"nets.{stem}.")
            }
            for stem in self.stems
        }
        self._window = torch.hann_window(N_FFT, device=device)
        squared = (self._window.square() * WINDOW_COMPENSATION)[None, :, None]
        self._envelope = overlap_add(squared.expand(1, N_FFT, SEGMENT_FRAMES))[0]

    def separate(self, segments: Tensor) -> Tensor:
        """``(batch, 2, 527360)`` float32 at 44.1 kHz → ``(batch, 2 stems, 2, 527360)``, windowed."""
        import torch

        if segments.ndim != 3 or segments.shape[1:] != (2, self.plan.length):
            shape = tuple(segments.shape)
            raise ValueError(f"{NAME} takes segments of (batch, 2, {self.plan.length}), not {shape}")
        with torch.inference_mode():
            signals = segments.flatten(0, 1)  # every channel of every segment
            spectrum = torch.stft(signals, N_FFT, HOP, window=self._window, center=False, return_complex=True)
            spectrum[:, BINS:] = 0
            spectrum[:, :BINS] *= self._vocal_mask(spectrum[:, :BINS].abs())
            frames = torch.fft.irfft(spectrum, N_FFT, dim=1)
            frames *= self._window[:, None] * WINDOW_COMPENSATION
            vocals = overlap_add(frames).reshape(segments.shape)
            return torch.stack([vocals, segments * self._envelope - vocals], dim=1)

    def _vocal_mask(self, magnitude: Tensor) -> Tensor:
        """The vocals' share of the power, in [0, 1]; ``magnitude`` and result are ``(2 × batch, bins, frames)``.

        It is the ratio of both nets' estimates, so it needs the accompaniment's net too.
        """
        import torch

        # (batch, 2, frames, bins); channels-last takes a sixth less time on a CPU, with the same result.
        images = magnitude.transpose(1, 2).unflatten(0, (-1, 2)).contiguous(memory_format=torch.channels_last)
        vocals, accompaniment = (unet(self._nets[stem], images).square_() for stem in self.stems)
        mask = (vocals + MASK_EPSILON / 2) / (vocals + accompaniment + MASK_EPSILON)
        return mask.flatten(0, 1).transpose(1, 2)


def _prepare_weight(tensor: Tensor, device: str) -> Tensor:
    import torch

    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    return tensor.to(device, torch.float32, memory_format=layout)
