"""Log-mel features as kaldi's ``compute-fbank-feats`` computes them, for a batch of windows, on any device.

Float32, with a Hann window, without dither and energy: equal to torchaudio's ``compliance.kaldi.fbank``, which AST was
trained with. The ``ASTFeatureExtractor`` of transformers needs torchaudio for that; without it, it loops over the
frames in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

# The defaults of kaldi's feature-fbank.h, feature-window.h and mel-computations.h.
SAMPLE_RATE: Final = 16_000  # Hz
FRAME: Final = 400  # samples: 25 ms
FRAME_HOP: Final = 160  # samples: 10 ms
N_FFT: Final = 512  # a frame is padded to this power of two
LOWEST_HZ: Final = 20.0
PREEMPHASIS: Final = 0.97
POWER_FLOOR: Final = 2.0**-23  # float32's epsilon


def hann_window() -> NDArray[np.float32]:
    """A symmetric window, ``(FRAME,)``: both ends are zero."""
    return np.hanning(FRAME).astype(np.float32)


def mel_filters(bands: int) -> NDArray[np.float32]:
    """``(N_FFT // 2 + 1, bands)`` triangles of height 1, with straight sides and equal width on the mel scale.

    The scale is O'Shaughnessy's, 1127 ln(1 + f / 700 Hz). With 128 bands, one of the lowest is so narrow that no bin
    of the FFT is in it; it was empty in training too.
    """

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127 * np.log1p(hz / 700)

    lowest, highest = mel(np.array([LOWEST_HZ, SAMPLE_RATE / 2]))
    edges = np.linspace(lowest, highest, bands + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = mel(np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1))[:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return np.maximum(triangles, 0).astype(np.float32)


def log_mel(samples: Tensor, window: Tensor, filters: Tensor) -> Tensor:
    """``(batch, n)`` mono samples at 16 kHz → ``(batch, frames, bands)``, the natural logarithm of the power.

    ``window`` and ``filters`` are those of the functions above. A last frame that would be incomplete is left out.
    """
    import torch

    frames = samples.unfold(1, FRAME, FRAME_HOP)
    frames = frames - frames.mean(dim=2, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)  # the first sample is its own predecessor
    frames = (frames - PREEMPHASIS * before) * window
    power = torch.fft.rfft(frames, n=N_FFT).abs().square()
    return (power @ filters).clamp(min=POWER_FLOOR).log()
