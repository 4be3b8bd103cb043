"""Weights from the assets of a release: downloaded, verified, converted; and a download with faults."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import hub_model, run_hub_server, use_hub
from legacy_demucs import pickled
from release_server import ReleaseServer, run_release_server
from tiny_chunked import SCNET, checkpoint, tiny_model

from bandscope_dagster.cli.models import fits_network
from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models import releases
from bandscope_dagster.models.inventory import Model, ReleaseSource
from bandscope_dagster.models.provision import add, pull
from bandscope_dagster.models.store import inspect_model

CONTENT = checkpoint(SCNET)
SOURCE = ReleaseSource(url="", repository="mia/tiny", release="v1.0.9")
MODEL = replace(tiny_model("scnet-xl-ihf", CONTENT), source=SOURCE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReleaseServer]:
    with run_release_server(SOURCE.repository, SOURCE.release, {"tiny.ckpt": CONTENT}) as running:
        monkeypatch.setattr(releases, "GITHUB", running.endpoint)
        monkeypatch.setattr(releases, "PAUSE_S", 0.001)
        yield running


def states(model: Model, models: Path) -> list[str]:
    return [status.state for status in inspect_model(model, models / model.name)]


def test_a_release_is_downloaded_verified_and_converted_once(server: ReleaseServer, tmp_path: Path) -> None:
    (placed,) = pull(MODEL, tmp_path, fits_network)
    assert placed.how == "downloaded and converted" and states(MODEL, tmp_path) == ["present"]
    names = {path.name for path in (tmp_path / MODEL.name).iterdir()}
    assert names == {"scnet-xl-ihf.safetensors", "converted.json", ".lock"}, "the pickle is gone"
    (again,) = pull(MODEL, tmp_path, fits_network)
    assert again.how == "already there" and len(server.requests) == 1


def test_a_pickle_on_the_hub_is_downloaded_and_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = replace(MODEL, source=hub_model().source)
    with run_hub_server({"tiny.ckpt": CONTENT}) as hub:
        use_hub(hub, monkeypatch, tmp_path)
        (placed,) = pull(model, tmp_path / "models", fits_network)
        assert placed.how == "downloaded and converted" and hub.downloads() == ["tiny.ckpt"]
        assert states(model, tmp_path / "models") == ["present"]
        hub.faults["tiny.ckpt"] = "wrong"
        with pytest.raises(
            ModelFileError, match=r"mia/tiny at revision 0123456789abcdef.* sent a tiny\.ckpt that is"
        ):
            list(pull(model, tmp_path / "others", fits_network))


def test_a_damaged_file_is_downloaded_again(server: ReleaseServer, tmp_path: Path) -> None:
    list(pull(MODEL, tmp_path))
    path = tmp_path / MODEL.name / "scnet-xl-ihf.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert states(MODEL, tmp_path) == ["wrong"]
    list(pull(MODEL, tmp_path))
    assert states(MODEL, tmp_path) == ["present"] and path.read_bytes() == whole


def test_a_download_that_breaks_off_is_continued(server: ReleaseServer, tmp_path: Path) -> None:
    server.faults += ["half", "500", "half"]
    list(pull(MODEL, tmp_path))
    assert states(MODEL, tmp_path) == ["present"]
    half = len(CONTENT) // 2
    assert [ranged for _, ranged in server.requests[:3]] == ["bytes=0-", f"bytes={half}-", f"bytes={half}-"]


def test_a_server_without_ranges_sends_all_of_it_again(server: ReleaseServer, tmp_path: Path) -> None:
    server.faults += ["half", "no ranges"]
    list(pull(MODEL, tmp_path))
    assert states(MODEL, tmp_path) == ["present"]


def test_more_than_the_listed_size_is_never_written(server: ReleaseServer, tmp_path: Path) -> None:
    server.faults += ["endless"]
    with pytest.raises(
        ModelFileError, match=rf"expected {len(CONTENT)} bytes .*, found {len(CONTENT) + 1} bytes"
    ):
        list(pull(MODEL, tmp_path))
    assert states(MODEL, tmp_path) == ["missing"]


def test_an_asset_that_is_not_there_is_not_asked_for_again(server: ReleaseServer, tmp_path: Path) -> None:
    server.faults += ["404"]
    with pytest.raises(ModelFileError) as refused:
        list(pull(MODEL, tmp_path))
    assert len(server.requests) == 1
    assert "tiny.ckpt of model scnet-xl-ihf cannot be downloaded from" in str(refused.value)
    assert "404" in str(refused.value) and "bandscope models add scnet-xl-ihf --from FILE" in str(
        refused.value
    )


def test_a_server_that_stays_down_is_an_error_that_names_the_file(
    server: ReleaseServer, tmp_path: Path
) -> None:
    server.faults += ["500"] * releases.ATTEMPTS
    with pytest.raises(ModelFileError, match=r"tiny\.ckpt of model scnet-xl-ihf cannot be downloaded"):
        list(pull(MODEL, tmp_path))
    assert len(server.requests) == releases.ATTEMPTS


def test_an_asset_with_another_digest_is_deleted_and_not_read(server: ReleaseServer, tmp_path: Path) -> None:
    other = replace(tiny_model("scnet-xl-ihf", CONTENT[:-1] + b"!"), source=SOURCE)
    with pytest.raises(
        ModelFileError, match=r"mia/tiny at release v1\.0\.9 sent a tiny\.ckpt that is not the one"
    ):
        list(pull(other, tmp_path))
    assert states(other, tmp_path) == ["missing"]


def test_a_pickle_of_another_network_is_refused_before_it_is_in_place(tmp_path: Path) -> None:
    content = pickled({"weight": CONTENT})
    with pytest.raises(ModelFileError, match="'weight', which is not a named tensor"):
        list(add(tiny_model("scnet-xl-ihf", content), [write(tmp_path, content)], tmp_path, fits_network))
    content = checkpoint(replace(SCNET, channels=(4, 8, 16)))
    model = tiny_model("scnet-xl-ihf", content)
    with pytest.raises(
        ModelFileError, match=r"of another shape \(decoder\.0\.0\.conv\.bias is \(32,\) instead of"
    ):
        list(add(model, [write(tmp_path, content)], tmp_path, fits_network))
    assert states(model, tmp_path) == ["missing"]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "copy.ckpt"
    path.write_bytes(content)
    return path


def test_a_file_that_is_not_the_pickle_is_refused_with_the_digests(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as refused:
        list(add(MODEL, [write(tmp_path, b"abc")], tmp_path))
    assert "it has 3 bytes with SHA-256" in str(refused.value)
    assert f"the weights of tiny.ckpt ({len(CONTENT)} bytes with SHA-256" in str(refused.value)
    assert "A pickle (.th, .ckpt) is converted only if its full digest is known, as listed here." in str(
        refused.value
    )
