"""The widest layers of an HTDemucs network on a CPU, a band of frequencies at a time; its output stays the same.

What lies between the convolutions of such a layer is up to four times as large as its input: 66 MB at a segment of
7.8 s. But a row of a spectrogram depends on a few neighbours only, so a layer can be computed band by band.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from demucs.hdemucs import HDecLayer, HEncLayer
    from demucs.htdemucs import HTDemucs
    from torch import Tensor

ROWS: Final = 64  # of a band, where a layer has few of them: behind an encoder's stride, before a decoder's


def compute_in_bands(network: HTDemucs) -> None:
    """Change ``network`` in place: its layers over more than ``ROWS`` rows work in bands, its inverse STFT by stem."""
    from demucs.hdemucs import HDecLayer, HEncLayer

    for layer in network.encoder:
        if isinstance(layer, HEncLayer) and _by_rows(layer) and _context(layer) == 0:
            layer.forward = _encoder_in_bands(layer)
    for layer in network.decoder:
        if isinstance(layer, HDecLayer) and _by_rows(layer):
            layer.forward = _decoder_in_bands(layer)
    inverse = network._ispec  # pyright: ignore[reportPrivateUsage]
    network._ispec = _stem_by_stem(inverse)  # pyright: ignore[reportPrivateUsage]


def _by_rows(layer: HEncLayer | HDecLayer) -> bool:
    """Whether its rows depend on near ones only; a norm would be over all of them."""
    return bool(layer.freq and layer.pad and layer.rewrite) and not layer.norm


def _context(layer: HEncLayer | HDecLayer) -> int:
    """How many rows on each side its second convolution looks at."""
    assert layer.rewrite is not None
    return layer.rewrite.kernel_size[0] // 2


def _encoder_in_bands(layer: HEncLayer) -> Callable[..., Tensor]:
    from torch.nn.functional import pad

    whole, stride, padding = layer.forward, layer.stride, layer.pad
    layer.conv.padding = (0, 0)  # what lies around a band are its neighbours; zeros lie around the whole

    def forward(x: Tensor, inject: Tensor | None = None) -> Tensor:
        padded = pad(x, (0, 0, padding, padding))
        rows = (padded.shape[2] - layer.kernel_size) // stride + 1
        if rows <= ROWS or inject is not None:
            return whole(padded, inject)

        def band(start: int) -> Tensor:
            last = min(start + ROWS, rows) - 1
            return whole(padded[:, :, start * stride : last * stride + layer.kernel_size])

        return _join(map(band, range(0, rows, ROWS)), rows)

    return forward


def _decoder_in_bands(layer: HDecLayer) -> Callable[..., tuple[Tensor, Tensor | None]]:
    whole, stride = layer.forward, layer.stride
    # Rows beyond a band that reach into its output, by the transposed convolution and by the one before it.
    before = _context(layer) + (layer.kernel_size - 1 - layer.pad) // stride
    after = _context(layer) + (layer.pad - 1) // stride + 1

    def forward(x: Tensor, skip: Tensor, length: int | None) -> tuple[Tensor, Tensor | None]:
        rows = x.shape[2] if x.dim() == 4 else 1
        if rows <= ROWS:
            return whole(x, skip, length)

        def band(start: int) -> Tensor:
            end = min(start + ROWS, rows)
            low, high = max(start - before, 0), min(end + after, rows)
            output, _ = whole(x[:, :, low:high], skip[:, :, low:high], length)
            return output[:, :, (start - low) * stride : (end - low) * stride]

        # The second result is used of a layer of one row alone.
        return _join(map(band, range(0, rows, ROWS)), rows * stride), None

    return forward


def _join(bands: Iterable[Tensor], rows: int) -> Tensor:
    """``(batch, channels, rows, frames)`` from bands of rows, of which one exists at a time."""
    import torch

    joined: Tensor | None = None
    start = 0
    for band in bands:
        if joined is None:
            shape = (*band.shape[:2], rows, band.shape[3])
            joined = torch.empty(shape, dtype=band.dtype, memory_format=torch.channels_last)
        end = start + band.shape[2]
        joined[:, :, start:end] = band
        start = end
    assert joined is not None and start == rows, f"bands of {start} rows instead of {rows}"
    return joined


def _stem_by_stem(inverse: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An inverse STFT of ``(batch, stems, channels, frequencies, frames)`` whose windows exist for one stem only."""
    import torch

    def forward(spectrogram: Tensor, length: int | None = None, scale: int = 0) -> Tensor:
        return torch.stack([inverse(stem, length, scale) for stem in spectrogram.unbind(1)], dim=1)

    return forward
