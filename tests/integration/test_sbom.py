"""The bill of materials: valid, without packages that only the tests need, and with the digests of all weights."""

import json
import subprocess

import pytest

from bandscope_dagster.models.inventory import load_inventory
from scripts.sbom import bill_of_materials, licences, tool
from training.sources import read_manifest

VALIDATE = """
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonValidator
validator = JsonValidator(SchemaVersion.V1_6)
print(json.dumps([validator.validate_str(text) is None for text in json.load(sys.stdin)]))
"""  # of each text in a list: is it valid


@pytest.fixture(scope="module")
def bill() -> dict:
    return bill_of_materials()


def test_it_is_valid(bill: dict) -> None:
    command = tool("cyclonedx-bom", "python", "-c", VALIDATE)
    texts = json.dumps([json.dumps(bill), "{}"])
    ended = subprocess.run(command, input=texts, text=True, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [True, False]


def test_it_holds_what_the_product_needs_and_nothing_else(bill: dict) -> None:
    names = {part["name"].lower() for part in bill["components"]}
    assert {"dagster", "torch", "demucs", "transformers", "av", "psycopg2-binary", "markupsafe"} <= names
    assert not names & {"pytest", "hypothesis", "playwright", "duckdb", "pandas", "cyclonedx-bom", "ruff"}


def test_every_file_of_every_model_is_there_with_its_digest(bill: dict) -> None:
    stated = {
        (part["name"], file["name"]): file["hashes"][0]["content"]
        for part in bill["components"]
        if part["type"] == "machine-learning-model"
        for file in part["components"]
        if file["type"] == "file"
    }
    assert stated == {
        (model.name, file.published.name): file.published.sha256
        for model in load_inventory().values()
        for file in model.files
    }
    pickles = {name for model, name in stated if model in ("scnet-large", "mel-band-roformer")}
    assert pickles == {"SCNet-large_starrytong_fixed.ckpt", "MelBandRoformer.ckpt"}


def test_a_model_depends_on_the_models_whose_weights_it_contains(bill: dict) -> None:
    uses = {part["ref"]: part["dependsOn"] for part in bill["dependencies"]}
    assert uses["model:bandscope-instruments"] == ["model:musicnn"]
    assert uses["model:musicnn"] == []


def test_a_model_of_ours_names_the_packages_it_was_trained_on_with_their_licences(bill: dict) -> None:
    (model,) = (part for part in bill["components"] if part["name"] == "bandscope-instruments")
    stated = {
        part["name"]: (part["version"], part["licenses"][0]["license"]["name"], part["hashes"][0]["content"])
        for part in model["components"]
        if part["type"] == "data"
    }
    assert stated == {
        package.name: (package.version, package.licence, package.sha256) for package in read_manifest()
    }
    datasets = model["modelCard"]["modelParameters"]["datasets"]
    assert [dataset["ref"] for dataset in datasets] == [f"model:{model['name']}/{name}" for name in stated]


def test_every_component_states_its_licence_as_far_as_its_authors_do(bill: dict) -> None:
    by_name = {part["name"]: licences(part) for part in bill["components"]}
    assert by_name["polars"] == ["MIT"]
    assert by_name["musicnn"] == ["ISC"]
    assert by_name["bandscope-instruments"] == ["ISC", "MIT"], "its weights contain those of musicnn"
    assert sum(stated == ["not stated"] for stated in by_name.values()) < 10
