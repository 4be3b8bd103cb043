"""The layers that oneDNN computes equal torch's own, and the setting that turns them on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_demucs import SEGMENT, tiny_demucs, tiny_network
from torch import nn

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.separation.demucs import transformer
from bandscope_dagster.separation.demucs.model import Demucs
from bandscope_dagster.separation.demucs.transformer import QUERIES_AT_ONCE, use_onednn, uses_onednn
from bandscope_dagster.separation.options import OneDnn

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
    use_onednn(attention)  # pyright: ignore[reportArgumentType]
    found, _ = attention(query, key, key, need_weights=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_masks_and_values_of_their_own_are_refused() -> None:
    attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).requires_grad_(False)
    use_onednn(attention)  # pyright: ignore[reportArgumentType]
    tokens = random(1, 4, WIDTH)
    with pytest.raises(ValueError, match="supports no mask"):
        attention(tokens, tokens, tokens, attn_mask=torch.zeros((4, 4)))
    with pytest.raises(ValueError, match="its values must be its keys"):
        attention(tokens, tokens, tokens.clone())


@pytest.mark.parametrize("batch", [1, 3])
def test_a_packed_network_gives_the_same_stems(batch: int) -> None:
    plain, packed = (tiny_network(3).requires_grad_(False) for _ in range(2))
    use_onednn(packed)
    with torch.inference_mode():
        segments = random(batch, 2, SEGMENT)
        torch.testing.assert_close(packed(segments), plain(segments), rtol=0, atol=1e-5)


def is_packed(separator: Demucs) -> bool:
    """True if oneDNN computes the transformer; the former weights, 130 MB in a real network, are dropped then."""
    layers = [m for m in separator._networks[0].modules() if isinstance(m, nn.TransformerEncoderLayer)]
    packed = {not hasattr(layer.linear1, "weight") for layer in layers}
    assert len(packed) == 1
    return packed.pop()


def test_the_setting_changes_the_speed_and_neither_the_stems_nor_the_lineage() -> None:
    on, off = tiny_demucs(onednn="on"), tiny_demucs(onednn="off")
    assert is_packed(on) and not is_packed(off)
    assert on.identity == off.identity
    segments = random(2, 2, SEGMENT)
    torch.testing.assert_close(on.separate(segments), off.separate(segments), rtol=0, atol=1e-5)


def test_other_precisions_are_not_packed() -> None:
    """They are computed by autocast, and packed weights do not work with it."""
    separator = tiny_demucs(precision="bf16", onednn="on")
    assert not is_packed(separator)
    assert separator.separate(random(1, 2, SEGMENT)).dtype == torch.float32


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the kernel describes the processors; the test writes it."""
    monkeypatch.setattr(transformer, "CPUINFO", tmp_path / "cpuinfo")
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(
    ("vendor", "vectors", "choice", "used"),
    [
        ("AuthenticAMD", "AVX512", "auto", True),
        ("AuthenticAMD", "AVX2", "auto", False),
        ("GenuineIntel", "AVX512", "auto", False),
        ("GenuineIntel", "AVX2", "auto", False),
        ("GenuineIntel", "AVX2", "on", True),
        ("AuthenticAMD", "AVX512", "off", False),
    ],
)
def test_auto_is_on_for_amd_with_avx512_and_the_others_decide_alone(
    vendor: str, vectors: str, choice: OneDnn, used: bool, processor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: AuthenticAMD or not\n\n" * 2)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    assert uses_onednn(choice) is used


def test_without_a_description_of_the_processor_auto_is_off(
    processor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not processor.exists()
    assert uses_onednn("auto") is False


def test_without_onednn_auto_is_off_and_on_is_an_error(
    processor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.write_text("vendor_id\t: AuthenticAMD\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert uses_onednn("auto")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert uses_onednn("auto") is False
    with pytest.raises(SettingsError, match="BANDSCOPE_ONEDNN=on, but this torch has no oneDNN"):
        uses_onednn("on")


def test_the_private_operators_are_used_in_one_module_only() -> None:
    package = Path(transformer.__file__).parents[2]
    users = [path.name for path in package.rglob("*.py") if "torch.ops." in path.read_text()]
    assert users == ["transformer.py"]
