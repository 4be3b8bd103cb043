"""tagging/omni_checkpoint: every weight of the thinker is read from a published checkpoint, and nothing else."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_omni import (
    FAMILIES,
    Vocabulary,
    entry,
    published_tensors,
    save_tiny_omni,
    save_weights,
    tiny_thinker,
)

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model
from bandscope_dagster.tagging.omni_checkpoint import load_checkpoint

Tensors = dict[str, torch.Tensor]


def with_other_weights(folder: Path, family: str, change: Callable[[Tensors], Any]) -> Model:
    """Save a checkpoint in ``folder`` after ``change`` to its tensors; return its entry in the inventory."""
    save_tiny_omni(folder, family)
    for path in folder.glob("model*"):
        path.unlink()
    tensors = published_tensors(tiny_thinker(family), family)
    change(tensors)
    save_weights(folder, tensors)
    return entry(folder, family)


def logits(thinker: Any, family: str) -> torch.Tensor:
    """The output of a thinker for two seconds of noise and a few bytes of text."""
    vocabulary = Vocabulary(family, ())
    generator = torch.Generator().manual_seed(7)
    audio = [vocabulary.id(vocabulary.audio)] * (50 if family == "qwen2.5-omni" else 26)
    tokens = [
        vocabulary.id(vocabulary.audio_begin),
        *audio,
        vocabulary.id(vocabulary.audio_end),
        3,
        1,
        4,
        1,
        5,
    ]
    with torch.inference_mode():
        return thinker(
            input_ids=torch.tensor([tokens]),
            attention_mask=torch.ones(1, len(tokens), dtype=torch.long),
            input_features=torch.randn(1, 128, 200, generator=generator),
            feature_attention_mask=torch.ones(1, 200, dtype=torch.long),
        ).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_the_thinker_arrives_from_the_shards_of_the_whole_model(family: str, tmp_path: Path):
    model = save_tiny_omni(tmp_path, family)
    names = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(names.values())) > 1
    assert {"thinker.lm_head.weight", "thinker.model.layers.1.self_attn.q_proj.weight"} < names.keys()
    if family == "qwen3-omni":
        assert "thinker.model.layers.1.mlp.experts.3.gate_proj.weight" in names

    loaded = load_checkpoint(model, tmp_path, "cpu").thinker
    original = tiny_thinker(family)
    assert loaded.dtype == torch.float32
    assert loaded.config.model_type == original.config.model_type
    expected = original.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    torch.testing.assert_close(logits(loaded, family), logits(original, family), rtol=0, atol=0)
    assert not torch.equal(logits(loaded, family), logits(tiny_thinker(family, seed=1), family))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_weight_is_an_error_that_names_it(family: str, tmp_path: Path):
    def remove(tensors: Tensors) -> None:
        del tensors["thinker.model.layers.1.self_attn.k_proj.weight"]

    model = with_other_weights(tmp_path, family, remove)
    with pytest.raises(ModelFileError, match=rf"{family}.*missing.*layers\.1\.self_attn\.k_proj\.weight"):
        load_checkpoint(model, tmp_path, "cpu")


def test_a_missing_expert_is_an_error(tmp_path: Path):
    def remove(tensors: Tensors) -> None:
        for name in [name for name in tensors if "layers.1.mlp.experts." in name]:
            del tensors[name]

    model = with_other_weights(tmp_path, "qwen3-omni", remove)
    with pytest.raises(ModelFileError, match=r"missing.*layers\.1\.mlp\.experts"):
        load_checkpoint(model, tmp_path, "cpu")


def test_weights_that_the_thinker_does_not_have_are_an_error_unless_they_make_speech(tmp_path: Path):
    def add(tensors: Tensors) -> None:
        tensors["thinker.model.layers.2.input_layernorm.weight"] = torch.ones(64)

    model = with_other_weights(tmp_path, "qwen2.5-omni", add)
    with pytest.raises(ModelFileError, match=r"unexpected.*layers\.2\.input_layernorm\.weight") as raised:
        load_checkpoint(model, tmp_path, "cpu")
    assert "talker" not in str(raised.value) and "token2wav" not in str(raised.value)


def test_a_weight_of_another_shape_is_an_error(tmp_path: Path):
    def widen(tensors: Tensors) -> None:
        tensors["thinker.model.norm.weight"] = torch.ones(65)

    model = with_other_weights(tmp_path, "qwen2.5-omni", widen)
    with pytest.raises(ModelFileError, match=r"mismatched.*norm\.weight.*65"):
        load_checkpoint(model, tmp_path, "cpu")


def test_another_kind_of_model_is_refused(tmp_path: Path):
    save_tiny_omni(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "qwen2_audio"}))
    with pytest.raises(
        ModelFileError, match="'qwen2_audio'; only qwen2_5_omni and qwen3_omni_moe are supported"
    ):
        load_checkpoint(entry(tmp_path, "qwen2.5-omni"), tmp_path, "cpu")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_an_entry_without_one_of_the_settings_is_refused(name: str, tmp_path: Path):
    save_tiny_omni(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelFileError, match=f"it has no {name}"):
        load_checkpoint(entry(tmp_path, "qwen2.5-omni"), tmp_path, "cpu")


def test_a_checkpoint_without_a_chat_template_is_refused(tmp_path: Path):
    save_tiny_omni(tmp_path)
    (tmp_path / "chat_template.json").unlink()
    with pytest.raises(ModelFileError, match="it has no chat template"):
        load_checkpoint(entry(tmp_path, "qwen2.5-omni"), tmp_path, "cpu")


def test_a_changed_shard_is_not_read(tmp_path: Path):
    model = save_tiny_omni(tmp_path)
    shard = next(iter(sorted(tmp_path.glob("*.safetensors"))))
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelFileError, match=shard.name):
        load_checkpoint(model, tmp_path, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_processor_has_no_parts_for_images_and_needs_no_library_for_them(family: str, tmp_path: Path):
    processor = load_checkpoint(save_tiny_omni(tmp_path, family), tmp_path, "cpu").processor
    assert processor.get_attributes() == ["feature_extractor", "tokenizer"]
    assert processor.audio_token_id == Vocabulary(family, ()).id(processor.audio_token)
    assert "torchvision" not in sys.modules


CONNECTIONS: list[tuple[Any, ...]] = []


def note_connections(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        CONNECTIONS.append((event, arguments))


def test_nothing_is_looked_for_on_a_network(tmp_path: Path):
    model = save_tiny_omni(tmp_path)
    sys.addaudithook(note_connections)
    CONNECTIONS.clear()
    load_checkpoint(model, tmp_path, "cpu")
    assert CONNECTIONS == []
