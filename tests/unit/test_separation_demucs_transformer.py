"""The layers that oneDNN computes against torch's own, and that they are in use."""

from __future__ import annotations

import pytest
import torch
from tiny_demucs import SEGMENT, tiny_demucs, tiny_network
from torch import nn

from bandscope_dagster.separation.demucs.transformer import QUERIES_AT_ONCE, pack_transformer

WIDTH, HEADS = 16, 2


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("tokens", [1, QUERIES_AT_ONCE, 2 * QUERIES_AT_ONCE + 3])
@pytest.mark.parametrize("others", [1, 700])
def test_attention_is_that_of_torch_for_any_number_of_tokens(tokens: int, others: int) -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    attention.in_proj_bias.copy_(random(3 * WIDTH))
    attention.out_proj.bias.copy_(random(WIDTH))
    query, key = random(3, tokens, WIDTH), random(3, others, WIDTH)
    expected, _ = attention(query, key, key, need_weights=False)
    pack_transformer(attention)  # pyright: ignore[reportArgumentType]
    found, _ = attention(query, key, key, need_weights=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_what_the_attention_cannot_do_it_refuses() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    pack_transformer(attention)  # pyright: ignore[reportArgumentType]
    tokens = random(1, 4, WIDTH)
    with pytest.raises(ValueError, match="no mask"):
        attention(tokens, tokens, tokens, attn_mask=torch.zeros((4, 4)))
    with pytest.raises(ValueError, match="its values from its keys"):
        attention(tokens, tokens, tokens.clone())


@pytest.mark.parametrize("batch", [1, 3])
def test_a_packed_network_gives_the_same_stems(batch: int) -> None:
    plain, packed = (tiny_network(3).requires_grad_(False) for _ in range(2))
    pack_transformer(packed)
    with torch.inference_mode():
        segments = random(batch, 2, SEGMENT)
        torch.testing.assert_close(packed(segments), plain(segments), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("precision", "packed"), [("fp32", True), ("bf16", False)])
def test_the_cpu_computes_single_precision_by_packed_weights_alone(precision: str, packed: bool) -> None:
    """The former weights would be 130 MB more; bf16 is autocast, which packed weights do not bear."""
    separator = tiny_demucs(precision=precision)
    layers = [m for m in separator._networks[0].modules() if isinstance(m, nn.TransformerEncoderLayer)]
    assert layers and all(hasattr(layer.linear1, "weight") is not packed for layer in layers)
    assert separator.separate(random(1, 2, SEGMENT)).dtype == torch.float32


def test_without_onednn_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    network = tiny_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pack_transformer(network)
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    with torch.inference_mode():
        network(random(1, 2, SEGMENT))
