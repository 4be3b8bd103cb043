"""``bandscope models``: its output, and an exit code for scripts."""

import os
from collections.abc import MutableMapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import cast

import pytest
from command_line import CommandLine
from hub_server import CONTENTS, REVISION, hub_model, run_hub_server, use_hub
from legacy_demucs import legacy_model, listed, save_legacy
from rich.console import Console
from sharded_model import SHARDS, WANTED, sharded_model, write_files
from tiny_chunked import BAND_SPLIT, SCNET, checkpoint, tiny_model
from tiny_demucs import tiny_network

from bandscope_dagster.cli import terminal
from bandscope_dagster.cli.models import require_models
from bandscope_dagster.errors import ModelFileError
from bandscope_dagster.models.inventory import UNKNOWN, Evidence, Model, find_model, load_inventory
from bandscope_dagster.models.store import require


@pytest.fixture(autouse=True)
def models_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder for models, and an inventory that also lists a tiny one."""
    for name in [name for name in os.environ if name.startswith("BANDSCOPE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BANDSCOPE_MODELS_FOLDER", str(tmp_path / "models"))
    list_model(monkeypatch, hub_model())
    return tmp_path / "models"


def list_model(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setitem(cast(MutableMapping[str, Model], load_inventory()), model.name, model)


@pytest.fixture
def bandscope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """Copies of the tiny model's files."""
    paths = [tmp_path / f"{name}.copy" for name in CONTENTS]
    for path, content in zip(paths, CONTENTS.values(), strict=True):
        path.write_bytes(content)
    return paths


def verdicts(output: str) -> dict[str, str]:
    """File, or model without any file → ok, missing or WRONG."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        verdict, first, second = line.split()[:3]
        found[second if first == "Model" else first] = verdict
    return found


def row(output: str, model: str) -> str:
    return next(line for line in output.splitlines() if line.strip().startswith(f"{model} "))


def test_every_model_is_listed_with_its_licence_and_what_is_here(
    bandscope: CommandLine, copies: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.console, "_width", 80)
    done = bandscope("models", "list")
    assert done.code == 0
    tables = done.out.partition("To download")[0]
    assert max(map(len, tables.splitlines())) <= 80 and "…" not in tables
    words = " ".join(tables.split())
    assert all(model.description.split()[0] in words for model in load_inventory().values())
    assert len(tables.splitlines()) <= 4 * len(load_inventory()), "descriptions have most of the width"
    assert all(model.licence in row(done.out, name) for name, model in load_inventory().items())
    assert "present" in row(done.out, "musicnn") and "missing" in row(done.out, "htdemucs")
    assert "4 missing" in row(done.out, "htdemucs_ft") and "2 missing" in row(done.out, "tiny")
    assert "To download a missing model or preset: bandscope models pull NAME\n" in done.out
    unknown = "scnet-xl-ihf, bs-roformer, bs-roformer-sw, mel-band-roformer\n"
    assert f"With --accept-unknown-licence, if you may use them: {unknown}" in done.out
    assert "bandscope models add htdemucs --from" in done.out

    bandscope("models", "add", "tiny", "--from", copies[0])
    assert "1 present, 1" in row(bandscope("models", "list").out, "tiny")
    bandscope("models", "add", "tiny", "--from", copies[1])
    assert "2 present" in row(bandscope("models", "list").out, "tiny")


def test_models_that_nothing_needs_may_be_absent(bandscope: CommandLine) -> None:
    done = bandscope("models", "verify")
    assert done.code == 0
    assert verdicts(done.out) == {
        file.name: "ok" if model.embedded else "missing"
        for model in load_inventory().values()
        for file in model.files
    } | dict.fromkeys(("ast", "qwen2.5-omni", "qwen3-omni"), "missing")
    assert "Model qwen3-omni is missing, and not needed." in done.out


@pytest.mark.parametrize(("variable", "model"), [("SEPARATOR", "htdemucs"), ("TAGGER", "tiny")])
def test_a_model_that_the_settings_choose_may_not_be_absent(
    variable: str, model: str, bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"BANDSCOPE_{variable}", model)
    assert bandscope("models", "verify").code == 1


def test_a_model_that_is_named_must_be_complete(bandscope: CommandLine, copies: list[Path]) -> None:
    assert bandscope("models", "verify", "musicnn").code == 0
    assert bandscope("models", "verify", "musicnn", "tiny").code == 1
    bandscope("models", "add", "tiny", "--from", copies[0], "--from", copies[1])
    done = bandscope("models", "verify", "tiny")
    assert done.code == 0 and verdicts(done.out) == dict.fromkeys(CONTENTS, "ok")


def test_presets_are_checked_as_their_models_each_once(bandscope: CommandLine) -> None:
    done = bandscope("models", "verify", "karaoke", "six-stems")
    assert done.code == 1
    files = [file.name for name in ("htdemucs_ft", "htdemucs_6s") for file in find_model(name).files]
    assert [done.out.count(f"{file} of model") for file in files] == [1] * 5, done.out


def test_a_model_that_is_here_in_part_is_not_right(bandscope: CommandLine, copies: list[Path]) -> None:
    added = bandscope("models", "add", "tiny", "--from", copies[0])
    assert added.code == 1 and "one.safetensors: copied" in added.out
    assert "1 of the 2 files of model tiny are still missing" in added.err
    done = bandscope("models", "verify")
    assert done.code == 1
    assert (
        verdicts(done.out)["one.safetensors"] == "ok" and verdicts(done.out)["two.safetensors"] == "missing"
    )


def test_a_wrong_file_is_not_right_whosever_it_is(bandscope: CommandLine, models_folder: Path) -> None:
    (models_folder / "htdemucs_6s").mkdir(parents=True)
    (models_folder / "htdemucs_6s" / "5c90dfd2.safetensors").write_bytes(b"wrong")
    done = bandscope("models", "verify")
    assert done.code == 1 and verdicts(done.out)["5c90dfd2.safetensors"] == "WRONG"
    assert "found 5 bytes with SHA-256" in done.out and "bandscope models pull htdemucs_6s" in done.out


def test_a_folder_of_copies_is_added_and_told_where_it_went(
    bandscope: CommandLine, copies: list[Path], models_folder: Path
) -> None:
    done = bandscope("models", "add", "tiny", "--from", copies[0].parent)
    assert done.code == 0 and f"tiny is complete in {models_folder / 'tiny'}" in done.out


def test_a_converted_model_is_verified_and_says_what_it_was_converted_from(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pickle = save_legacy(tiny_network(), tmp_path)
    list_model(monkeypatch, legacy_model(listed(pickle.read_bytes(), pickle.name)))
    assert "f00dcafe.safetensors: converted" in bandscope("models", "add", "legacy", "--from", pickle).out
    done = bandscope("models", "verify", "legacy")
    assert done.code == 0 and f"converted from {pickle.name}" in done.out


def test_what_cannot_be_pulled_is_a_sentence(bandscope: CommandLine, models_folder: Path) -> None:
    for model, says in {"musicnn": "is part of the package", "wavenet": "Unknown model 'wavenet'"}.items():
        done = bandscope("models", "pull", model)
        assert done.code == 1 and says in done.err
    assert not models_folder.exists()


def test_a_folder_of_the_home_is_meant_as_a_shell_means_it(
    bandscope: CommandLine, copies: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BANDSCOPE_MODELS_FOLDER")
    assert bandscope("models", "add", "tiny", "--from", copies[0], "--from", copies[1]).code == 0
    assert (tmp_path / ".bandscope" / "models" / "tiny" / "one.safetensors").is_file()


@pytest.fixture
def sharded(monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model in shards. The inventory has its revision, but no digests."""
    model = sharded_model()
    list_model(monkeypatch, model)
    return model


def test_what_is_pulled_without_a_listed_digest_says_that_the_hub_vouches(
    sharded: Model,
    bandscope: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    models_folder: Path,
    tmp_path: Path,
) -> None:
    assert "?" in row(bandscope("models", "list").out, "sharded").split()
    done = bandscope("models", "verify", "sharded")
    assert done.code == 1 and "Model sharded is missing" in done.out
    assert "bandscope models pull sharded" in done.out

    with run_hub_server(WANTED) as server:
        use_hub(server, monkeypatch, tmp_path)
        done = bandscope("models", "pull", "sharded")
    assert done.code == 0 and f"{SHARDS[0]}: downloaded" in done.out
    assert f"The inventory has no digests of {', '.join(sorted(WANTED))}" in done.out
    assert f"pinned revision were saved in {models_folder / 'sharded' / 'pins.json'}" in done.out

    done = bandscope("models", "verify", "sharded")
    assert done.code == 0 and verdicts(done.out) == dict.fromkeys(WANTED, "ok")
    assert done.out.count(f"the file that the hub's metadata states at revision {REVISION}") == len(WANTED)
    assert f"{len(WANTED)} present" in row(bandscope("models", "list").out, "sharded")


def test_what_is_added_without_a_listed_digest_says_that_nobody_else_vouches(
    sharded: Model, bandscope: CommandLine, tmp_path: Path, models_folder: Path
) -> None:
    done = bandscope("models", "add", "sharded", "--from", write_files(WANTED, tmp_path / "given"))
    assert done.code == 0 and "only you can know that these files are authentic" in done.out
    assert f"no digests of {', '.join(sorted(WANTED))}" in done.out
    done = bandscope("models", "verify", "sharded")
    assert done.code == 0 and done.out.count("which no published digest confirms") == len(WANTED)

    write_files({"model.safetensors": b"one too many"}, models_folder / "sharded")
    done = bandscope("models", "verify")
    assert done.code == 1 and "model.safetensors is not a file of model sharded" in done.out


def test_a_check_that_shows_how_far_it_is_finds_what_the_silent_one_finds(
    sharded: Model, models_folder: Path, tmp_path: Path
) -> None:
    console = Console(file=(tmp_path / "terminal").open("w"), force_terminal=True, width=100)
    with pytest.raises(ModelFileError) as shown:
        require_models(console, [sharded, hub_model()], models_folder)
    with pytest.raises(ModelFileError) as silent:
        require([sharded, hub_model()], models_folder)
    assert str(shown.value) == str(silent.value)
    console.file.flush()
    assert "checking sharded" in (tmp_path / "terminal").read_text()


def test_what_was_said_about_a_licence_is_listed_with_dates_and_links(bandscope: CommandLine) -> None:
    lines = bandscope("models", "list").out.splitlines()
    for model in load_inventory().values():
        for each in model.evidence:
            assert f"  {each.date.isoformat()}  {each.says} {each.url}" in lines
    assert "bs-roformer-sw: licence unknown" in lines and "htdemucs: licence MIT" in lines
    assert lines.index("scnet-large: licence MIT") > lines.index("htdemucs: licence MIT"), (
        "in the inventory's order"
    )


def test_weights_of_unknown_licence_are_pulled_only_if_that_is_accepted(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch, models_folder: Path, tmp_path: Path
) -> None:
    model = replace(
        hub_model(), licence=UNKNOWN, evidence=(Evidence(date(2026, 8, 4), "Mia: maybe.", "https://x"),)
    )
    list_model(monkeypatch, model)
    with run_hub_server() as server:
        use_hub(server, monkeypatch, tmp_path)
        done = bandscope("models", "pull", "tiny")
        assert done.code == 1 and server.requests == [] and not models_folder.exists()
        words = " ".join(done.err.split())
        assert "The licence of the weights of tiny is unknown" in words
        assert "2026-08-04 Mia: maybe. https://x" in words
        assert "repeat the command with --accept-unknown-licence. Nothing was downloaded." in words
        done = bandscope("models", "pull", "tiny", "--accept-unknown-licence")
    assert done.code == 0 and "tiny is complete" in done.out
    verified = bandscope("models", "verify", "bs-roformer")
    assert "`bandscope models pull bs-roformer --accept-unknown-licence`" in " ".join(verified.out.split())


def test_a_listed_pickle_is_added_and_must_fit_its_network(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = checkpoint(BAND_SPLIT, wrapper="state_dict", prefix="model.")
    (tmp_path / "any name").write_bytes(content)
    list_model(monkeypatch, tiny_model("bs-roformer", content))
    done = bandscope("models", "add", "bs-roformer", "--from", tmp_path / "any name")
    assert done.code == 0 and "bs-roformer.safetensors: converted" in done.out
    assert bandscope("models", "verify", "bs-roformer").code == 0

    other = checkpoint(SCNET)
    (tmp_path / "other").write_bytes(other)
    list_model(monkeypatch, replace(tiny_model("bs-roformer", other), name="tiny"))
    done = bandscope("models", "add", "tiny", "--from", tmp_path / "other")
    assert done.code == 1 and "of another network than the inventory describes" in " ".join(done.err.split())
