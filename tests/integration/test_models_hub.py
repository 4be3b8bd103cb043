"""The hub's metadata of a model is used only if it agrees with the inventory and with itself."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import REPOSITORY, REVISION, HubServer, run_hub_server, stated, use_hub
from huggingface_hub import constants
from sharded_model import INDEX, SHARDS, UNWANTED, WANTED, sharded_model
from syntax_trees import importers

from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.hub import pins_of_revision
from bandscope_dagster.models.inventory import Model, ModelFile
from bandscope_dagster.models.pins import Pin

SHARDED = sharded_model()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with run_hub_server(WANTED | UNWANTED) as server:
        use_hub(server, monkeypatch, tmp_path)
        yield server


def ask(folder: Path, model: Model = SHARDED) -> dict[str, Pin]:
    return pins_of_revision(model, model.unlisted, model.source, folder)


def test_what_is_wanted_is_pinned_by_sha256_and_nothing_else_is(hub: HubServer, tmp_path: Path) -> None:
    assert ask(tmp_path) == {
        name: Pin(len(content), hashlib.sha256(content).hexdigest(), REVISION)
        for name, content in WANTED.items()
    }


def test_no_weights_are_downloaded_for_that(hub: HubServer, tmp_path: Path) -> None:
    ask(tmp_path)
    assert sorted(hub.downloads()) == ["config.json", INDEX]


def test_a_hub_that_answers_for_another_revision_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.revision = "f" * 40
    with pytest.raises(
        ModelFileError, match=f"{REPOSITORY} at revision {REVISION} and answered with revision ffff"
    ):
        ask(tmp_path)


def test_a_small_file_that_is_not_what_git_calls_it_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.faults["config.json"] = "wrong"
    with pytest.raises(
        ModelFileError, match=r"sent a config\.json that differs from its metadata"
    ) as refused:
        ask(tmp_path)
    assert hub.listing["config.json"]["blobId"] in str(refused.value)
    assert "`bandscope models add sharded --from FOLDER`" in str(refused.value)


def test_a_hub_that_contradicts_the_inventory_is_refused_before_anything_is_downloaded(
    hub: HubServer, tmp_path: Path
) -> None:
    listed = replace(SHARDED, files=(ModelFile(SHARDS[0], 7, "c" * 64),))
    with pytest.raises(
        ModelFileError, match=r"expected 7 bytes with SHA-256 cccc\w+, the hub states"
    ) as refused:
        ask(tmp_path, listed)
    assert hub.listing[SHARDS[0]]["lfs"]["sha256"] in str(refused.value) and hub.downloads() == []


def test_a_file_that_the_inventory_lists_is_not_pinned(hub: HubServer, tmp_path: Path) -> None:
    content = WANTED[SHARDS[0]]
    file = ModelFile(SHARDS[0], len(content), hashlib.sha256(content).hexdigest())
    assert ask(tmp_path, replace(SHARDED, files=(file,))).keys() == WANTED.keys() - {SHARDS[0]}


def test_a_repository_without_a_shard_that_its_index_names_is_not_the_model(
    hub: HubServer, tmp_path: Path
) -> None:
    del hub.listing[SHARDS[2]]
    with pytest.raises(ModelFileError, match=f"is incomplete: it has no {SHARDS[2]}"):
        ask(tmp_path)


def test_a_repository_without_a_file_that_the_model_must_have_is_not_the_model(
    hub: HubServer, tmp_path: Path
) -> None:
    del hub.listing["config.json"]
    with pytest.raises(ModelFileError, match=r"Model sharded in .* is incomplete: it has no config\.json"):
        ask(tmp_path)


def test_names_that_leave_the_folder_are_not_the_models(hub: HubServer, tmp_path: Path) -> None:
    for name in ("../evil.safetensors", "talker/model.safetensors", "/evil.safetensors"):
        hub.listing[name] = stated(name, b"evil")
    assert ask(tmp_path / "landing").keys() == WANTED.keys()
    assert not list(tmp_path.rglob("evil*"))


def test_a_hub_that_states_no_digest_is_refused(hub: HubServer, tmp_path: Path) -> None:
    del hub.listing["config.json"]["blobId"]
    with pytest.raises(ModelFileError, match=r"config\.json that differs from its metadata"):
        ask(tmp_path)


def test_a_listing_that_does_not_come_is_a_sentence(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = (
        rf"The list of files of model sharded cannot be downloaded from {REPOSITORY} at revision {REVISION}"
    )
    hub.faults["listing"] = "500"
    with pytest.raises(ModelFileError, match=rf"{failed}: HfHubHTTPError"):
        ask(tmp_path)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelFileError, match=rf"{failed}: ConnectError"):
        ask(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelFileError, match=rf"{failed}: HF_HUB_OFFLINE"):
        ask(tmp_path)


def test_no_other_module_can_touch_the_hub() -> None:
    assert importers("huggingface_hub") == {"bandscope_dagster.models.hub"}
