"""HTDemucs' transformer on a CPU, multiplied by oneDNN instead of torch's MKL; the output is the same to rounding.

MKL does not use the widest vectors of AMD's processors. On an AMD EPYC with AVX-512, oneDNN does 437 GFLOP/s in float32
products of these sizes, and MKL 184; a segment takes 1.36 s instead of 2.00. On an AMD EPYC without AVX-512 (Zen 3) MKL
is faster, and a segment takes 14 % less CPU time without oneDNN. Intel's processors were not measured
(``benchmarks/RESULTS.md``).

This is the one module that calls torch's private operators (``torch.ops.mkldnn``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.separation.options import OneDnn

if TYPE_CHECKING:
    from demucs.htdemucs import HTDemucs
    from torch import Tensor
    from torch.nn import Linear, MultiheadAttention

CPUINFO: Final = Path("/proc/cpuinfo")
QUERIES_AT_ONCE: Final = 512  # 5 MB of scores at a segment of 7.8 s: they stay in the processor's cache

Product = Callable[["Tensor"], "Tensor"]


def uses_onednn(choice: OneDnn) -> bool:
    """True if oneDNN computes the transformer on this CPU. ``auto`` is on for AMD processors with AVX-512.

    Raises:
        SettingsError: ``choice`` is "on", and this torch cannot multiply by oneDNN.
    """
    if choice == "off" or (choice == "auto" and not _is_amd_with_avx512()):
        return False
    if _has_onednn():
        return True
    if choice == "on":
        raise SettingsError("BANDSCOPE_ONEDNN=on, but this torch has no oneDNN for float32: set auto or off")
    return False


def _is_amd_with_avx512() -> bool:
    import torch

    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    try:
        return re.search(r"^vendor_id\s*: AuthenticAMD$", CPUINFO.read_text(), re.MULTILINE) is not None
    except OSError:  # not Linux
        return False


def _has_onednn() -> bool:
    """True if torch has the operators that torch.compile puts in place of a linear layer; they have no public name."""
    import torch

    names = ("_linear_pointwise", "_reorder_linear_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def use_onednn(network: HTDemucs) -> None:
    """Compute the attention and the feed-forward layers of ``network``, which is float32 on the CPU, by oneDNN.

    It repacks their weights and drops the former ones (130 MB).
    """
    from demucs.transformer import CrossTransformerEncoderLayer, MyTransformerEncoderLayer
    from torch.nn import Identity, MultiheadAttention
    from torch.nn.functional import gelu

    for layer in network.modules():
        if isinstance(layer, MultiheadAttention):  # not demucs's own class, which is for sparse attention
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
    """A product ``(…, inputs)`` → ``(…, outputs)`` by a weight ``(outputs, inputs)``, with the activation fused in."""
    import torch

    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    own_bias = bias.clone()
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda x: multiply(x, packed, own_bias, activation, [], "none")


def _attention(attention: MultiheadAttention) -> Callable[..., tuple[Tensor, None]]:
    """A forward for ``attention`` that takes one head and one block of queries at a time.

    It supports no masks, and the values must be the keys.
    """
    import torch

    multiply = torch.ops.mkldnn._linear_pointwise
    width, heads = attention.embed_dim, attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    scale = (width // heads) ** -0.5
    to_queries = _product(weight[:width] * scale, bias[:width] * scale)
    to_keys = _product(weight[width : 2 * width], bias[width : 2 * width])
    to_values = weight[2 * width :].clone()
    # A query's shares sum to one, so a bias that every value has can be added after the values are mixed.
    output = attention.out_proj
    to_output = _product(output.weight, output.bias + output.weight @ bias[2 * width :])

    def by_head(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def forward(query: Tensor, key: Tensor, value: Tensor, **settings: Any) -> tuple[Tensor, None]:
        if key is not value or settings.get("attn_mask") is not None:
            raise ValueError("HTDemucs' attention supports no mask, and its values must be its keys")
        queries = by_head(to_queries(query))
        # Keys and values are used as a linear layer's weight, and oneDNN is slow if that is strided. So keys are made
        # contiguous; values are computed with the tokens as the weight, which gives (channels, tokens) at once.
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
