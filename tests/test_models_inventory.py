"""models/inventory: the list agrees with the files that are shipped."""

import re
from dataclasses import replace

import pytest

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import Model, ModelFile, find_model, load_inventory
from bandscope_dagster.models.store import EMBEDDED

MODELS = list(load_inventory().values())


def test_the_embedded_models_are_listed():
    assert [(model.name, model.kind, model.embedded) for model in MODELS] == [
        ("spleeter-2stems", "separator", True),
        ("musicnn", "tagger", True),
    ]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_digest_is_a_full_sha256(model: Model):
    digests = [file.sha256 for file in model.files]
    digests += [model.source.wheel_sha256, *model.source.checkpoint.values()]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_the_licence_that_is_named_is_shipped(model: Model):
    text = (EMBEDDED / model.licence_file).read_text("utf-8")
    assert model.licence in ("MIT", "ISC")
    assert "Copyright (c)" in text
    assert "Permission" in text


def test_no_weights_are_shipped_that_are_not_listed():
    listed = {file.name for model in MODELS for file in model.files}
    assert {path.name for path in EMBEDDED.glob("*.safetensors")} == listed


def test_the_identity_of_one_file_is_its_digest_and_that_of_several_depends_on_all():
    model = find_model("musicnn")
    assert model.sha256 == model.files[0].sha256
    other = ModelFile("other.safetensors", 1, "0" * 64)
    both, swapped = replace(model, files=(*model.files, other)), replace(model, files=(other, *model.files))
    assert len({model.sha256, both.sha256, swapped.sha256}) == 3


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ModelFileError, match=r"'wavenet'.*spleeter-2stems, musicnn"):
        find_model("wavenet")
