"""An HTDemucs network's residual branches on a CPU, with less to read and write; the output is the same to rounding.

A branch squeezes the channels to an eighth by a convolution over three frames, widens them to twice their number, norms
those over all channels and frames, and gates them. What it works on is small beside what it writes, so here

- the second norm is part of the widening: mean and variance of ``W h + b`` follow from the mean and the covariance of
  the few channels of ``h``, and the norm's scale and shift are then channels of the input;
- rows of a spectrogram, which come as tokens ``(rows, frames, channels)``, stay tokens, and oneDNN multiplies them
  (see ``separation/demucs/transformer.py``).

What it is worth is in ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from bandscope_dagster.separation.inference import has_onednn

if TYPE_CHECKING:
    from demucs.htdemucs import HTDemucs
    from torch import Tensor
    from torch.nn import Conv1d, GroupNorm, Sequential


def pack_residuals(network: HTDemucs) -> None:
    """Change the branches of ``network``, which is float32 on the CPU, in place; ``fuse`` was there before.

    Branches that are made otherwise, and all where torch has no oneDNN, stay as they are.
    """
    from demucs.demucs import DConv

    if not has_onednn():
        return
    for block in network.modules():
        if isinstance(block, DConv):
            for layer in cast("list[Sequential]", block.layers):
                if _is_known(layer):
                    layer.forward = _Branch(layer)  # pyright: ignore[reportAttributeAccessIssue]


def _is_known(layer: Sequential) -> bool:
    from torch.nn import GELU, GLU, Conv1d, GroupNorm

    kinds = [Conv1d, GroupNorm, GELU, Conv1d, GroupNorm, GLU]
    if [type(module) for module in layer] != kinds:
        return False
    squeeze, norm, _, widen, last_norm, _ = cast(
        "tuple[Conv1d, GroupNorm, object, Conv1d, GroupNorm, object]", (*layer,)
    )
    same_frames = squeeze.padding == squeeze.dilation and squeeze.stride == (1,)
    kernels = (squeeze.kernel_size, widen.kernel_size)
    return same_frames and kernels == ((3,), (1,)) and norm.num_groups == last_norm.num_groups == 1


@dataclass(frozen=True, slots=True)
class _Widening:
    """A convolution over one frame and the norm behind it as one product.

    With mean m and deviation s of all that the convolution gives, ``gamma (W h + b - m) / s + beta`` is the product of
    ``(gamma W, gamma b, -gamma)`` and ``(h / s, 1 / s, m / s)``, and ``beta``.
    """

    weight: Tensor  # (outputs, inputs + 2)
    bias: Tensor  # (outputs,)
    mean_weight: Tensor  # (inputs,): the mean of W's rows
    mean_bias: Tensor
    centred_weight: Tensor  # (outputs, inputs), (outputs,): W and b without those means
    centred_bias: Tensor
    gram: Tensor  # (inputs, inputs): W' W / outputs
    eps: float

    @classmethod
    def of(cls, widen: Conv1d, norm: GroupNorm) -> _Widening:
        import torch

        assert widen.bias is not None
        weight, bias, scale = widen.weight[:, :, 0], widen.bias, norm.weight
        mean_weight, mean_bias = weight.mean(0), bias.mean()
        return cls(
            weight=torch.cat([scale[:, None] * weight, (scale * bias)[:, None], -scale[:, None]], dim=1),
            bias=norm.bias.clone(),
            mean_weight=mean_weight,
            mean_bias=mean_bias,
            centred_weight=weight - mean_weight,
            centred_bias=bias - mean_bias,
            gram=weight.T @ weight / len(weight),
            eps=norm.eps,
        )

    def write_input(self, h: Tensor, to: Tensor) -> None:
        """What the product takes, ``(rows, inputs + 2, frames)``, from ``h``, ``(rows, inputs, frames)``."""
        import torch
        from torch.nn.functional import linear

        mean = h.mean(dim=2)
        centred = h - mean[:, :, None]
        covariance = centred @ centred.transpose(1, 2) / h.shape[2]
        # The variance over the frames, and that of the outputs' means: two sums of squares, so nothing cancels out.
        variance = (covariance * self.gram).sum(dim=(1, 2))
        variance += linear(mean, self.centred_weight, self.centred_bias).square().mean(dim=1)
        scale = torch.rsqrt(variance + self.eps)[:, None]
        channels = h.shape[1]
        torch.mul(h, scale[:, :, None], out=to[:, :channels])
        to[:, channels] = scale
        to[:, channels + 1] = scale * (mean @ self.mean_weight + self.mean_bias)[:, None]


class _Branch:
    """The forward of one residual branch: ``(rows, channels, frames)`` of both, in either layout."""

    def __init__(self, layer: Sequential) -> None:
        import torch

        squeeze, norm, activation, widen, last_norm, _ = (*layer,)
        self._squeeze = cast("Conv1d", squeeze)
        self._norm, self._activation = norm, activation
        self._widening = _Widening.of(cast("Conv1d", widen), cast("GroupNorm", last_norm))
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._widening.weight)
        weight = self._squeeze.weight
        self._by_tap = weight.permute(2, 0, 1).flatten(0, 1).contiguous()  # (3 * outputs, inputs)

    def __call__(self, x: Tensor) -> Tensor:
        tokens = x.transpose(1, 2)
        return self._of_tokens(tokens).transpose(1, 2) if tokens.is_contiguous() else self._of_channels(x)

    def _of_channels(self, x: Tensor) -> Tensor:
        from torch.nn.functional import conv1d, glu

        widening = self._widening
        h = self._activation(self._norm(self._squeeze(x)))
        expanded = h.new_empty(len(h), h.shape[1] + 2, h.shape[2])
        widening.write_input(h, expanded)
        return glu(conv1d(expanded, widening.weight[:, :, None], widening.bias), dim=1)

    def _of_tokens(self, x: Tensor) -> Tensor:
        """``(rows, frames, channels)`` of both, contiguous."""
        import torch
        from torch.nn.functional import glu

        rows, frames, channels = x.shape
        multiply = torch.ops.mkldnn._linear_pointwise
        # The few outputs as the left factor: so they come channel by channel, which all up to the widening wants.
        taps = multiply(self._by_tap, x.view(-1, channels), None, "none", [], "none")
        before, h, after = taps.view(3, -1, rows, frames)
        by = self._squeeze.dilation[0]
        h[:, :, by:] += before[:, :, :-by]
        h[:, :, :-by] += after[:, :, by:]
        assert self._squeeze.bias is not None
        h = (h + self._squeeze.bias[:, None, None]).transpose(0, 1).contiguous()
        h = self._activation(self._norm(h))
        expanded = h.new_empty(rows, frames, h.shape[1] + 2)
        self._widening.write_input(h, expanded.transpose(1, 2))
        wide = multiply(expanded.flatten(0, 1), self._packed, self._widening.bias, "none", [], "none")
        return glu(wide.view(rows, frames, -1), dim=-1)
