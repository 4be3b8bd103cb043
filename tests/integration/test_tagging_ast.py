"""tagging/ast: the scores of transformers itself, for exactly the given audio."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tiny_ast import INSTRUMENTS, LABELS, NAME, entry, save_tiny_ast, tiny_network

from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.tagging.ast import Ast, load_ast, read_network
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.source_tags import SourceTags

Audio = NDArray[np.float32]
LENGTH = 163_840  # samples: 10.24 s at 16 kHz


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a tiny network with windows of 10.24 s, shared by all tests: do not change them."""
    folder = tmp_path_factory.mktemp("ast")
    save_tiny_ast(folder)
    return folder


@pytest.fixture(scope="module")
def ast(folder: Path) -> Ast:
    return load(folder)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """The files of a smaller network, for tests that change them."""
    save_tiny_ast(tmp_path, frames=128)
    return tmp_path


def load(folder: Path, **options: Any) -> Ast:
    return load_ast(entry(folder), folder, "cpu", TaggingOptions(**options))


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def music(windows: int, length: int = LENGTH) -> Audio:
    """``(windows, length)``: each has notes of different pitches over noise of a different level."""
    rng = np.random.default_rng(0)
    time = np.arange(length) / 16_000
    notes = [
        np.sin(2 * np.pi * hz * time) * (np.sin(2 * np.pi * beat * time) > 0)
        for hz, beat in zip(rng.uniform(80, 4000, windows), rng.uniform(0.5, 4, windows), strict=True)
    ]
    noise = rng.normal(0, 1, (windows, length)) * rng.uniform(0.001, 0.2, (windows, 1))
    return (0.5 * np.stack(notes) + noise).astype(np.float32)


def peak_bins(ast: Ast, windows: Sequence[Audio]) -> NDArray[np.intp]:
    """The mel bin with the highest mean among the features that reach the network, for each window."""
    seen: list[torch.Tensor] = []
    hook = ast.network.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_values"]), with_kwargs=True
    )
    ast.tag(np.stack(windows))
    hook.remove()
    return seen[0][:, :1022].mean(1).argmax(1).numpy()


def mel(hz: float) -> float:
    """O'Shaughnessy's mel scale, as kaldi and HTK use it."""
    return 1127 * np.log(1 + hz / 700)


def mel_bin(hz: float) -> float:
    """The bin of a tone among 128 filters, whose edges and centres are equally spaced in mel from 20 Hz to 8 kHz."""
    return (mel(hz) - mel(20)) / (mel(8000) - mel(20)) * 129 - 1


@pytest.mark.parametrize("hz", [250, 1000, 4000])
@pytest.mark.parametrize("rate", [44_100, 16_000, 48_000])
def test_a_tone_in_a_stereo_song_of_any_rate_lands_in_its_mel_bin(ast: Ast, hz: int, rate: int) -> None:
    tone = np.sin(2 * np.pi * hz * np.arange(12 * rate) / rate).astype(np.float32)
    source = SourceTags("mixture", ast, rate)
    windows = source.push(np.stack([tone, 0.5 * tone])) + source.finish()
    for found in peak_bins(ast, [window.samples for window in windows]):
        assert found == pytest.approx(mel_bin(hz), abs=1)
    # Likely mistakes: 44.1 kHz read as 16 kHz, or two interleaved channels as one.
    assert mel_bin(hz) - mel_bin(hz * 16 / 44.1) > 5 and mel_bin(hz) - mel_bin(hz / 2) > 5


def test_scores_are_those_of_transformers_own_pipeline(ast: Ast, folder: Path) -> None:
    theirs = transformers.AudioClassificationPipeline(
        model=transformers.ASTForAudioClassification.from_pretrained(folder),
        feature_extractor=transformers.ASTFeatureExtractor.from_pretrained(folder),
    )
    windows = music(6)
    for heard, window in zip(ast.tag(windows), windows, strict=True):
        answer = theirs({"raw": window, "sampling_rate": 16_000}, top_k=None, function_to_apply="sigmoid")
        expected = {score["label"]: score["score"] for score in answer if score["label"] in INSTRUMENTS}
        assert {tag.label: tag.score for tag in heard.tags} == pytest.approx(expected, abs=1e-5)


def test_scores_depend_on_what_is_heard(ast: Ast) -> None:
    assert ast.scores(music(6)).std(axis=0).max() > 0.01


@pytest.mark.parametrize("level", [1.0, 1e-3])
def test_features_are_those_of_transformers(ast: Ast, folder: Path, level: float) -> None:
    windows = level * music(3)
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folder)
    expected = extractor(list(windows), sampling_rate=16_000, return_tensors="np")["input_values"]
    found = ast.features(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_window_is_scored_alike_alone_and_in_any_batch(ast: Ast) -> None:
    windows = music(5)
    alone = np.concatenate([ast.scores(window[None]) for window in windows])
    np.testing.assert_allclose(ast.scores(windows), alone, atol=1e-5)
    np.testing.assert_allclose(ast.scores(windows[::-1].copy()), alone[::-1], atol=1e-5)


def test_all_instruments_and_voices_are_tagged_in_audiosets_own_words_and_nothing_else(ast: Ast) -> None:
    heard = ast.tag(music(2))
    assert [[tag.label for tag in window.tags] for window in heard] == [list(INSTRUMENTS)] * 2
    assert all(0 <= tag.score <= 1 for window in heard for tag in window.tags if tag.score is not None)


def test_samples_at_full_scale_and_digital_silence_give_finite_scores(ast: Ast) -> None:
    square = np.sign(np.sin(np.arange(LENGTH) * 0.05)).astype(np.float32)
    assert np.isfinite(ast.scores(np.stack([square, np.zeros_like(square)]))).all()


@pytest.mark.parametrize("shape", [(LENGTH,), (1, 2, LENGTH), (1, 160_000), (2, LENGTH * 441 // 160)])
def test_windows_of_another_shape_are_refused(ast: Ast, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"\(batch, {LENGTH}\), mono at 16000 Hz.*{re.escape(str(shape))}"):
        ast.tag(np.zeros(shape, np.float32))


def test_samples_that_are_not_float32_are_refused(ast: Ast) -> None:
    with pytest.raises(ValueError, match=r"takes float32 windows .* not float64"):
        ast.tag(np.zeros((1, LENGTH)))


def test_windows_follow_each_other_unless_a_hop_is_chosen(ast: Ast, folder: Path) -> None:
    assert (ast.plan.sample_rate, ast.plan.length, ast.plan.hop, ast.plan.lead) == (16_000, LENGTH, LENGTH, 0)
    assert load(folder, hop_s=5.12).plan.hop == LENGTH // 2


@pytest.mark.parametrize("hop_s", [0.0, -1.0, 10.25])
def test_a_hop_that_is_not_within_a_window_is_refused(folder: Path, hop_s: float) -> None:
    with pytest.raises(SettingsError, match=rf"TAG_HOP_S={hop_s} .* above 0 and at most the 10.24 s"):
        load(folder, hop_s=hop_s)


@pytest.mark.parametrize("option", [{"window_s": 5.0}, {"mode": "list"}])
def test_options_that_ast_does_not_have_are_refused(folder: Path, option: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(option)).upper()}.* has no meaning for {NAME}"):
        load(folder, **option)


def test_the_identity_changes_with_what_changes_the_scores(own_folder: Path, tmp_path_factory: Any) -> None:
    model, identity = entry(own_folder), load(own_folder).identity
    assert (identity.name, identity.sha256) == (NAME, model.sha256)
    assert json.loads(json.dumps(identity.params)) == identity.params
    assert load(own_folder, batch=7).identity == identity
    assert load(own_folder, hop_s=0.5).identity != identity
    other = tmp_path_factory.mktemp("other")
    save_tiny_ast(other, seed=1, frames=128)
    assert load(other).identity != identity


def test_the_batch_is_the_chosen_one(own_folder: Path) -> None:
    assert load(own_folder).batch == 1
    assert load(own_folder, batch=7).batch == 7


def test_every_weight_arrives_under_the_names_of_the_published_file(own_folder: Path) -> None:
    """The published file has the tensor names of transformers before version 5, which still writes them."""
    names = set(load_file(own_folder / "model.safetensors"))
    assert "audio_spectrogram_transformer.encoder.layer.1.attention.attention.query.weight" in names
    network, _ = read_network(entry(own_folder), own_folder)
    loaded, expected = network.state_dict(), tiny_network(frames=128).state_dict()
    assert loaded.keys() == expected.keys() and len(names) == len(expected)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


@pytest.mark.parametrize("change", ["missing", "unexpected", "mismatched"])
def test_tensors_that_are_not_exactly_the_networks_are_refused(own_folder: Path, change: str) -> None:
    name = "audio_spectrogram_transformer.encoder.layer.0.intermediate.dense.weight"
    weights = load_file(own_folder / "model.safetensors")
    if change == "missing":
        del weights[name]
    else:
        name = "other.weight" if change == "unexpected" else name
        weights[name] = torch.zeros(3, 3)
    save_file(weights, own_folder / "model.safetensors")
    found = name if change == "unexpected" else "audio_spectrogram_transformer.layers.0.mlp.fc1.weight"
    with pytest.raises(ModelFileError, match=rf"{change}_keys: .*{re.escape(found)}"):
        load(own_folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "config.json",
            {"architectures": ["WhisperForConditionalGeneration"]},
            r"config.json is for .'Whisper.*; only ASTForAudioClassification is supported",
        ),
        ("config.json", {"id2label": dict.fromkeys(range(9), "Rain")}, "no label in config.json"),
        ("preprocessor_config.json", {"sampling_rate": 44_100}, "sampling_rate = 44100; it must be 16000"),
        ("preprocessor_config.json", {"max_length": 512}, "max_length = 512; it must be 128"),
        ("preprocessor_config.json", {"num_mel_bins": 64}, "num_mel_bins = 64; it must be 128"),
        (
            "preprocessor_config.json",
            {"do_normalize": False},
            "do_normalize = False; it must be True",
        ),
    ],
)
def test_a_configuration_of_something_else_is_refused(
    own_folder: Path, file: str, changes: dict[str, Any], message: str
) -> None:
    rewrite(own_folder / file, **changes)
    with pytest.raises(ModelFileError, match=message):
        load(own_folder)


def test_an_entry_without_one_of_the_files_is_refused(own_folder: Path) -> None:
    (own_folder / "preprocessor_config.json").unlink()
    with pytest.raises(
        ModelFileError, match=f"{NAME} is not an AST tagger: it has no preprocessor_config.json"
    ):
        load(own_folder)


def test_files_that_are_not_the_inventorys_are_never_read(own_folder: Path) -> None:
    model = entry(own_folder)
    weights = own_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelFileError, match=r"model\.safetensors of model tiny-ast is not the file"):
        load_ast(model, own_folder, "cpu", TaggingOptions())


def test_attention_is_never_held_as_a_matrix(own_folder: Path) -> None:
    network, _ = read_network(entry(own_folder), own_folder)
    assert network.config._attn_implementation == "sdpa"
    assert len(LABELS) == network.config.num_labels
