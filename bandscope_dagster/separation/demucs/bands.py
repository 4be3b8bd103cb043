"""HTDemucs' widest layers on a CPU, computed in bands of frequencies to save memory; the output is the same.

The tensors between the convolutions of such a layer are up to four times as large as its input: 66 MB at a segment of
7.8 s. A row of a spectrogram depends only on a few neighbours, so a layer can be computed band by band. This lowers the
pipeline's peak memory by 15 %, from 1,580 to 1,338 MB, and takes 3 % more CPU time (``benchmarks/RESULTS.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from demucs.hdemucs import HDecLayer, HEncLayer
    from demucs.htdemucs import HTDemucs
    from torch import Tensor

ROWS: Final = 64  # of a band, counted where a layer has fewer rows: an encoder's output, a decoder's input


def compute_in_bands(network: HTDemucs) -> None:
    """Change ``network`` in place: layers of more than ``ROWS`` rows use bands, the inverse STFT goes stem by stem."""
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
    """True if a row depends only on rows near it; a norm would use all of them."""
    return bool(layer.freq and layer.pad and layer.rewrite) and not layer.norm


def _context(layer: HEncLayer | HDecLayer) -> int:
    """The number of rows on each side that the second convolution uses."""
    assert layer.rewrite is not None
    return layer.rewrite.kernel_size[0] // 2


def _encoder_in_bands(layer: HEncLayer) -> Callable[..., Tensor]:
    from torch.nn.functional import pad

    whole, stride, padding = layer.forward, layer.stride, layer.pad
    layer.conv.padding = (0, 0)  # a band is padded with its neighbours; only the whole is padded with zeros

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
    # Rows outside a band that affect its output, by the transposed convolution and by the one before it.
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

        # The second result is only used from a layer of one row.
        return _join(map(band, range(0, rows, ROWS)), rows * stride), None

    return forward


def _join(bands: Iterable[Tensor], rows: int) -> Tensor:
    """``(batch, channels, rows, frames)`` from bands of rows, which are computed one at a time."""
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
    """An inverse STFT of ``(batch, stems, channels, frequencies, frames)`` that holds the frames of one stem only."""
    import torch

    def forward(spectrogram: Tensor, length: int | None = None, scale: int = 0) -> Tensor:
        return torch.stack([inverse(stem, length, scale) for stem in spectrogram.unbind(1)], dim=1)

    return forward
