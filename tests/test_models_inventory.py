"""models/inventory: the list agrees with the files that are shipped, and pins those that are not."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import demucs
import pytest
import yaml

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import (
    HubSource,
    Model,
    ModelFile,
    PackageSource,
    find_model,
    load_inventory,
)
from bandscope_dagster.models.store import EMBEDDED

EMBEDDED_MODELS = [model for model in load_inventory().values() if model.embedded]
HUB_MODELS = [model for model in load_inventory().values() if not model.embedded]


def test_the_models_are_listed_with_what_is_embedded_first():
    assert [(model.name, model.kind, model.embedded) for model in load_inventory().values()] == [
        ("spleeter-2stems", "separator", True),
        ("musicnn", "tagger", True),
        ("htdemucs", "separator", False),
        ("htdemucs_ft", "separator", False),
        ("htdemucs_6s", "separator", False),
    ]


@pytest.mark.parametrize("model", load_inventory().values(), ids=lambda model: model.name)
def test_every_digest_is_a_full_sha256_and_no_two_files_share_one(model: Model):
    digests = [file.sha256 for file in model.files]
    digests += [file.legacy.sha256 for file in model.files if file.legacy]
    if isinstance(model.source, PackageSource):
        digests += [model.source.wheel_sha256, *model.source.checkpoint.values()]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("model", HUB_MODELS, ids=lambda model: model.name)
def test_what_is_not_embedded_is_pinned_to_a_commit_of_its_repository(model: Model):
    assert isinstance(model.source, HubSource)
    assert re.fullmatch(r"[\w-]+/[\w-]+", model.source.repository)
    assert re.fullmatch(r"[0-9a-f]{40}", model.source.revision)
    assert model.licence == "MIT" and model.licence_file is None and "arxiv.org" in model.citation


@pytest.mark.parametrize("model", HUB_MODELS, ids=lambda model: model.name)
def test_the_files_of_a_demucs_model_are_those_that_demucs_puts_together_in_its_order(model: Model):
    bag = yaml.safe_load((Path(demucs.__file__).parent / "remote" / f"{model.name}.yaml").read_text())
    assert [file.name for file in model.files] == [f"{signature}.safetensors" for signature in bag["models"]]


def test_the_one_legacy_file_bears_the_digest_in_its_name_as_demucs_named_it():
    (legacy,) = [file.legacy for model in HUB_MODELS for file in model.files if file.legacy]
    assert legacy.name == f"955717e8-{legacy.sha256[:8]}.th"


@pytest.mark.parametrize("model", EMBEDDED_MODELS, ids=lambda model: model.name)
def test_the_licence_that_is_named_is_shipped(model: Model):
    assert model.licence_file is not None
    text = (EMBEDDED / model.licence_file).read_text("utf-8")
    assert model.licence in ("MIT", "ISC")
    assert "Copyright (c)" in text
    assert "Permission" in text


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


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ModelFileError, match=r"'wavenet'.*spleeter-2stems, musicnn"):
        find_model("wavenet")
