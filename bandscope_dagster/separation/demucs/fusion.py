"""Takes passes over memory, and memory, out of a loaded HTDemucs network; its output stays the same to rounding.

The passes are worth about 2 % of a CPU's time (``benchmarks/RESULTS.md``), and fewer kernels on an accelerator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from demucs.demucs import DConv
    from demucs.htdemucs import HTDemucs
    from demucs.transformer import CrossTransformerEncoderLayer, MyTransformerEncoderLayer
    from torch import Tensor
    from torch.nn import GroupNorm, Linear, Sequential


def fuse(network: HTDemucs) -> None:
    """Change ``network`` in place: fold its layer scales, let its token norms keep their layout, add without copies."""
    import torch
    from demucs.demucs import DConv
    from demucs.transformer import CrossTransformerEncoderLayer, MyGroupNorm, MyTransformerEncoderLayer

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, MyTransformerEncoderLayer | CrossTransformerEncoderLayer):
                _fold_transformer_scales(module)
            elif isinstance(module, DConv):
                _fold_residual_scales(module)
                module.forward = _add_in_place(module)  # pyright: ignore[reportAttributeAccessIssue]
            elif isinstance(module, MyGroupNorm):
                module.forward = _token_norm(module)  # pyright: ignore[reportAttributeAccessIssue]


def _fold_transformer_scales(layer: MyTransformerEncoderLayer | CrossTransformerEncoderLayer) -> None:
    """``gamma * (W x + b)`` is ``(gamma W) x + gamma b``: both scales follow a linear layer."""
    from demucs.transformer import LayerScale, MyTransformerEncoderLayer
    from torch.nn import Identity

    attention: Any = layer.self_attn if isinstance(layer, MyTransformerEncoderLayer) else layer.cross_attn
    linears: list[tuple[str, Linear]] = [("gamma_1", attention.out_proj), ("gamma_2", layer.linear2)]
    for name, linear in linears:
        scale = getattr(layer, name)
        if isinstance(scale, LayerScale):
            linear.weight.mul_(scale.scale[:, None])
            linear.bias.mul_(scale.scale)
            setattr(layer, name, Identity())


def _fold_residual_scales(block: DConv) -> None:
    """A residual branch ends in group norm, GLU, scale; the GLU is linear in its first half of the channels."""
    from demucs.transformer import LayerScale
    from torch.nn import GLU, GroupNorm

    for layer in cast("list[Sequential]", block.layers):
        *_, norm, gate, scale = layer
        if isinstance(norm, GroupNorm) and isinstance(gate, GLU) and isinstance(scale, LayerScale):
            channels = len(scale.scale)
            norm.weight[:channels].mul_(scale.scale)
            norm.bias[:channels].mul_(scale.scale)
            del layer[-1]


def _add_in_place(block: DConv) -> Callable[[Tensor], Tensor]:
    """``x + layer(x)`` for each layer, written into ``x``: the result of an activation, that nobody else holds."""

    def forward(x: Tensor) -> Tensor:
        for layer in block.layers:
            x += layer(x)
        return x

    return forward


def _token_norm(norm: GroupNorm) -> Callable[[Tensor], Tensor]:
    """Group norm of tokens ``(batch, tokens, channels)``, which stay contiguous."""
    from torch.nn import GroupNorm

    def forward(x: Tensor) -> Tensor:
        # As (batch, channels, 1, tokens) this is the channels-last layout, for which torch has a kernel; the transposed
        # tokens alone would be copied, and all that follows would work across the grain.
        image = x.transpose(1, 2).unsqueeze(2)
        return GroupNorm.forward(norm, image).squeeze(2).transpose(1, 2)

    return forward
