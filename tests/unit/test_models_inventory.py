"""The inventory agrees with the shipped files, and pins the others."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import demucs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.conversions import RECORD
from bandscope_dagster.models.inventory import (
    UNKNOWN,
    HubSource,
    Model,
    ModelFile,
    PackageSource,
    ReleaseSource,
    TrainedSource,
    UnlistedFiles,
    find_model,
    load_inventory,
)
from bandscope_dagster.models.pins import PINS
from bandscope_dagster.models.store import EMBEDDED

EMBEDDED_MODELS = [model for model in load_inventory().values() if model.embedded]
HUB_MODELS = [model for model in load_inventory().values() if not model.embedded]
DEMUCS_MODELS = [model for model in HUB_MODELS if model.kind == "separator" and model.network is None]
PICKLED_MODELS = [model for model in HUB_MODELS if model.network]
UNLISTED = {model.name: model.unlisted for model in HUB_MODELS if model.unlisted}


def test_the_models_are_listed_with_what_is_embedded_first():
    assert [(model.name, model.kind, model.embedded) for model in load_inventory().values()] == [
        ("spleeter-2stems", "separator", True),
        ("bandscope-instruments", "tagger", True),
        ("musicnn", "tagger", True),
        ("htdemucs", "separator", False),
        ("htdemucs_ft", "separator", False),
        ("htdemucs_6s", "separator", False),
        ("scnet-large", "separator", False),
        ("scnet-xl-ihf", "separator", False),
        ("bs-roformer", "separator", False),
        ("bs-roformer-sw", "separator", False),
        ("mel-band-roformer", "separator", False),
        ("ast", "tagger", False),
        ("qwen2.5-omni", "tagger", False),
        ("qwen3-omni", "tagger", False),
    ]


@pytest.mark.parametrize("model", load_inventory().values(), ids=lambda model: model.name)
def test_every_digest_is_a_full_sha256_and_no_two_files_share_one(model: Model):
    digests = [file.sha256 for file in model.files if file.sha256]
    digests += [file.legacy.sha256 for file in model.files if file.legacy]
    if isinstance(model.source, PackageSource):
        digests += [model.source.wheel_sha256, *model.source.checkpoint.values()]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("model", HUB_MODELS, ids=lambda model: model.name)
def test_what_is_not_embedded_is_pinned_to_a_commit_or_a_release_of_its_repository(model: Model):
    source = model.source
    assert isinstance(source, HubSource | ReleaseSource)
    assert re.fullmatch(r"[\w-]+/[\w.-]+", source.repository)
    pinned = source.revision if isinstance(source, HubSource) else source.release
    assert re.fullmatch(r"[0-9a-f]{40}|v[0-9.]+", pinned)
    assert model.licence in ("MIT", "BSD-3-Clause", "Apache-2.0", UNKNOWN)
    assert model.licence_file is None and "https://arxiv.org/abs/" in model.citation


@pytest.mark.parametrize("model", DEMUCS_MODELS, ids=lambda model: model.name)
def test_the_files_of_a_demucs_model_are_those_that_demucs_puts_together_in_its_order(model: Model):
    bag = yaml.safe_load((Path(demucs.__file__).parent / "remote" / f"{model.name}.yaml").read_text())
    assert [file.name for file in model.files] == [f"{signature}.safetensors" for signature in bag["models"]]


@pytest.mark.parametrize("model", PICKLED_MODELS, ids=lambda model: model.name)
def test_what_is_published_as_a_pickle_says_where_its_digest_and_its_parameters_come_from(model: Model):
    (file,) = model.files
    assert file.name == f"{model.name}.safetensors" and (file.bytes, file.sha256) == (None, None)
    assert file.published == file.legacy and file.published.name.endswith(".ckpt")
    assert model.published_sha256 == file.published.sha256
    assert model.provenance and "second-hand" in model.provenance


@pytest.mark.parametrize(
    "model",
    [model for model in load_inventory().values() if model.kind == "separator"],
    ids=lambda model: model.name,
)
def test_every_separator_has_evidence_of_its_licence_oldest_first(model: Model):
    assert model.evidence and all(each.url.startswith("https://") and each.says for each in model.evidence)
    dates = [each.date for each in model.evidence]
    assert dates == sorted(dates)


def test_the_one_legacy_file_of_demucs_bears_the_digest_in_its_name_as_demucs_named_it():
    (legacy,) = [file.legacy for model in DEMUCS_MODELS for file in model.files if file.legacy]
    assert legacy.name == f"955717e8-{legacy.sha256[:8]}.th"


@pytest.mark.parametrize("model", EMBEDDED_MODELS, ids=lambda model: model.name)
def test_the_licence_that_is_named_is_shipped(model: Model):
    assert model.licence_file is not None
    text = (EMBEDDED / model.licence_file).read_text("utf-8")
    assert model.licence in ("MIT", "ISC")
    assert "Copyright (c)" in text
    assert "Permission" in text


@pytest.mark.parametrize("model", EMBEDDED_MODELS, ids=lambda model: model.name)
def test_the_licences_of_the_models_whose_weights_it_contains_are_shipped_with_it(model: Model):
    contained = model.source.contains if isinstance(model.source, TrainedSource) else ()
    assert contained == (("musicnn",) if model.name == "bandscope-instruments" else ())
    for name in contained:
        part = find_model(name)
        assert part.licence_file is not None and model.licence_file is not None
        theirs, ours = (
            (EMBEDDED / file).read_text("utf-8") for file in (part.licence_file, model.licence_file)
        )
        assert theirs.strip() in ours


def test_the_tagger_of_our_own_is_at_most_12_mb():
    (file,) = find_model("bandscope-instruments").files
    assert file.bytes <= 12_000_000


def test_no_weights_are_shipped_that_are_not_listed():
    listed = {file.name for model in EMBEDDED_MODELS for file in model.files}
    assert {path.name for path in EMBEDDED.glob("*.safetensors")} == listed


def test_the_identity_of_one_file_is_its_digest_and_that_of_several_depends_on_all():
    model = find_model("musicnn")
    assert model.sha256 == model.files[0].sha256
    other = ModelFile("other.safetensors", 1, "0" * 64)
    both, swapped = replace(model, files=(*model.files, other)), replace(model, files=(other, *model.files))
    assert len({model.sha256, both.sha256, swapped.sha256}) == 3
    assert both.sha256 == hashlib.sha256((model.files[0].sha256 + other.sha256).encode()).hexdigest()


def test_the_identity_is_unknown_where_a_digest_is():
    converted = {model.name for model in PICKLED_MODELS}
    assert UNLISTED.keys() | converted == {
        name for name, model in load_inventory().items() if model.sha256 is None
    }


@pytest.mark.parametrize("unlisted", UNLISTED.values(), ids=UNLISTED)
def test_neither_pickles_nor_code_nor_our_own_records_are_files_of_a_model(unlisted: UnlistedFiles):
    unwanted = ["pytorch_model.bin", "spk_dict.pt", "model.pkl", "model.th", "modeling.py", "README.md"]
    assert not any(unlisted.wants(name) for name in [*unwanted, PINS, RECORD, ".incoming", ".lock"])
    assert unlisted.required and not any("/" in pattern for pattern in unlisted.required + unlisted.optional)


@pytest.mark.parametrize("name", ["qwen2.5-omni", "qwen3-omni"])
def test_all_that_transformers_reads_of_a_sharded_language_model_is_wanted(name: str):
    shards = ["model-00001-of-00005.safetensors", "model.safetensors", "model.safetensors.index.json"]
    tokenizer = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json"]
    rest = ["config.json", "generation_config.json", "preprocessor_config.json", "special_tokens_map.json"]
    for file in [*shards, *tokenizer, *rest, "chat_template.json", "chat_template.jinja"]:
        assert UNLISTED[name].wants(file)


@pytest.mark.parametrize(
    "name",
    [
        "../a.safetensors",
        "talker/a.safetensors",
        "..\\a.safetensors",
        "C:a.safetensors",
        "/a.safetensors",
        ".a.safetensors",
        "",
        ".",
        "..",
        "a\n.safetensors",
        "a\0.safetensors",
        "á.safetensors",
        "a.safetensors\n",
    ],
)
def test_a_name_that_is_not_plain_is_not_wanted(name: str):
    assert UNLISTED["qwen3-omni"].wants("a.safetensors") and not UNLISTED["qwen3-omni"].wants(name)


@given(st.text(st.sampled_from("a./\\:~\0 -"), max_size=12).map(lambda text: f"{text}.safetensors"))
def test_whatever_is_wanted_stays_in_its_folder(name: str):
    if UNLISTED["qwen3-omni"].wants(name):
        assert PurePosixPath(name).name == PureWindowsPath(name).name == name and not name.startswith(".")


def test_a_required_pattern_is_unmet_until_a_file_meets_it():
    unlisted = UnlistedFiles(("*.safetensors", "config.json"), ("vocab.json",))
    assert unlisted.unmet(["vocab.json", "config.json"]) == ["*.safetensors"]
    assert unlisted.unmet(["one.safetensors", "config.json"]) == []


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ModelFileError, match=r"'wavenet'.*spleeter-2stems, bandscope-instruments, musicnn"):
        find_model("wavenet")
