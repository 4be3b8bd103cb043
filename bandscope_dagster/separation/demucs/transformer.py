"""The transformer of an HTDemucs network on a CPU, multiplied by oneDNN; its output stays the same to rounding.

torch gives the products of float32 to MKL, which does not get out of every maker's processors what they can do: on an
AMD EPYC with AVX-512 it does 184 GFLOP a second, and oneDNN, which torch has for its convolutions, 437. These products
are two thirds of the network's work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bandscope_dagster.separation.inference import has_onednn

if TYPE_CHECKING:
    from demucs.htdemucs import HTDemucs
    from torch import Tensor
    from torch.nn import Linear, MultiheadAttention

QUERIES_AT_ONCE: Final = 512  # 5 MB of scores at a segment of 7.8 s: they stay in the processor's cache

Product = Callable[["Tensor"], "Tensor"]


def pack_transformer(network: HTDemucs) -> None:
    """Have ``network``, which is float32 on the CPU, compute its attention and its feed-forward layers by oneDNN.

    Their weights are laid out anew, and the former ones dropped. Where torch has no oneDNN, as for some other kinds of
    processors, nothing changes.
    """
    from demucs.transformer import CrossTransformerEncoderLayer, MyTransformerEncoderLayer
    from torch.nn import Identity, MultiheadAttention
    from torch.nn.functional import gelu

    if not has_onednn():
        return
    for layer in network.modules():
        if isinstance(layer, MultiheadAttention):  # and not demucs's own class, for sparse attention
            layer.forward = _attention(layer)
            del layer.in_proj_weight, layer.out_proj.weight
        elif isinstance(layer, MyTransformerEncoderLayer | CrossTransformerEncoderLayer):
            with_gelu = layer.activation is gelu
            _pack(layer.linear1, "gelu" if with_gelu else "none")
            _pack(layer.linear2, "none")
            if with_gelu:
                layer.activation = Identity()


def _pack(linear: Linear, activation: str) -> None:
    linear.forward = _product(linear.weight, linear.bias, activation)  # pyright: ignore[reportAttributeAccessIssue]
    del linear.weight


def _product(weight: Tensor, bias: Tensor, activation: str = "none") -> Product:
    """``(…, inputs)`` → ``(…, outputs)``, by a weight of ``(outputs, inputs)``; the activation is in the same pass."""
    import torch

    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    own_bias = bias.clone()
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, own_bias, activation, [], "none")


def _attention(attention: MultiheadAttention) -> Callable[..., tuple[Tensor, None]]:
    """The forward of ``attention``, a head and a block of queries at a time; without masks, and keys are the values."""
    import torch

    multiply = torch.ops.mkldnn._linear_pointwise
    width, heads = attention.embed_dim, attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    scale = (width // heads) ** -0.5
    to_queries = _product(weight[:width] * scale, bias[:width] * scale)
    to_keys = _product(weight[width : 2 * width], bias[width : 2 * width])
    to_values = weight[2 * width :].clone()
    # The shares of a query sum to one, so what is added to every value is added to what is mixed of them.
    output = attention.out_proj
    to_output = _product(output.weight, output.bias + output.weight @ bias[2 * width :])

    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def forward(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> tuple[Tensor, None]:
        if key is not value or settings.get("attn_mask") is not None:
            raise ValueError("the attention of HTDemucs takes its values from its keys, and has no mask")
        queries = by_head(to_queries(query))
        # Keys and values take the place of a linear layer's weight, by which oneDNN multiplies slowly where it is
        # strided. Where the tokens take that place, values come as (channels, tokens), which they have to be.
        keys = by_head(to_keys(key)).contiguous()
        mixed = query.new_empty((*query.shape[:2], heads, width // heads))
        for song in range(len(query)):
            values = multiply(to_values, key[song], None, "none", [], "none").unflatten(0, (heads, -1))
            for head in range(heads):
                for start in range(0, query.shape[1], QUERIES_AT_ONCE):
                    block = slice(start, start + QUERIES_AT_ONCE)
                    scores = multiply(queries[song, head, block], keys[song, head], None, "none", [], "none")
                    shares = scores.softmax(dim=-1)
                    mixed[song, block, head] = multiply(shares, values[head], None, "none", [], "none")
        return to_output(mixed.flatten(2)), None

    return forward
