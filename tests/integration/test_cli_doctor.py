"""Doctor: the result of each check, and an exit code for scripts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine
from faulty_proxy import FaultyProxy
from s3_server import S3Server

from bandscope_dagster.models import store
from bandscope_dagster.models.inventory import load_inventory

CHECKS = ["settings", "storage", "device", "models", "Dagster home"]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment in which all checks pass."""
    for name in [name for name in os.environ if name.startswith("BANDSCOPE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path / "store"))
    monkeypatch.setenv("BANDSCOPE_MODELS_FOLDER", str(tmp_path / "models"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))


@pytest.fixture
def bandscope(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def model_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A copy of the package's model files, used instead of them, which tests may damage."""
    folder = tmp_path / "package"
    folder.mkdir()
    for model in load_inventory().values():
        for file in model.files if model.embedded else ():
            shutil.copy(store.EMBEDDED / file.name, folder)
    monkeypatch.setattr(store, "EMBEDDED", folder)
    return folder


def findings(output: str) -> dict[str, str]:
    """Check → "ok" or "FAIL"."""
    lines = output.splitlines()
    return {name: line.split()[0] for line in lines for name in CHECKS if line[5:].startswith(f"{name}  ")}


def test_where_all_is_well_it_says_so_and_leaves_nothing_in_the_store(
    bandscope: CommandLine, tmp_path: Path
) -> None:
    done = bandscope("doctor")
    assert done.code == 0
    assert findings(done.out) == dict.fromkeys(CHECKS, "ok")
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    assert bandscope("doctor").code == 0 and list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BANDSCOPE_FLAC_BITS", "20", "BANDSCOPE_FLAC_BITS: Input should be 16 or 24"),
        ("BANDSCOPE_STEMS", "vocals,kazoo", "BANDSCOPE_STEMS"),
    ],
)
def test_where_a_value_is_wrong_the_checks_that_depend_on_settings_are_named_as_left_out(
    variable: str, value: str, says: str, bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    done = bandscope("doctor")
    assert done.code == 1 and says in done.out and "Value error" not in done.out
    assert findings(done.out) == {"settings": "FAIL", "models": "ok", "Dagster home": "ok"}
    assert "storage, device, tagger: not checked" in done.out


def test_a_new_process_with_a_wrong_value_examines_the_rest_too(tmp_path: Path) -> None:
    """No module that the command imports may need valid settings."""
    variables = {"BANDSCOPE_FLAC_BITS": "20", "DAGSTER_HOME": str(tmp_path / "home")}
    script = Path(sys.executable).with_name("bandscope")
    done = subprocess.run([script, "doctor"], env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 1
    assert findings(done.stdout) == {"settings": "FAIL", "models": "ok", "Dagster home": "ok"}


@pytest.mark.parametrize(
    ("variable", "value", "says", "fails"),
    [
        (
            "BANDSCOPE_SEPARATOR",
            "spleeter",
            "BANDSCOPE_SEPARATOR='spleeter' is unknown; choose one of",
            ("settings", "models"),
        ),
        (
            "BANDSCOPE_TAGGER",
            "shazam",
            "BANDSCOPE_TAGGER='shazam' is unknown; choose one of bandscope-instruments, musicnn",
            ("settings", "models"),
        ),
        ("BANDSCOPE_SEPERATOR", "htdemucs", "BANDSCOPE_SEPERATOR: no such setting", ("settings",)),
    ],
)
def test_an_unknown_name_fails_and_the_rest_is_still_examined(
    variable: str,
    value: str,
    says: str,
    fails: tuple[str, ...],
    bandscope: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    done = bandscope("doctor")
    assert done.code == 1 and says in done.out
    assert findings(done.out) == dict.fromkeys(CHECKS, "ok") | dict.fromkeys(fails, "FAIL")


def test_a_device_that_is_absent_fails(bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDSCOPE_DEVICE", "cuda:99")
    done = bandscope("doctor")
    assert done.code == 1 and "cuda:99" in done.out
    assert findings(done.out) == dict.fromkeys(CHECKS, "ok") | {"device": "FAIL"}


def test_a_storage_that_cannot_be_written_fails(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(tmp_path / "file"))
    done = bandscope("doctor")
    assert done.code == 1
    assert findings(done.out) == dict.fromkeys(CHECKS, "ok") | {"storage": "FAIL"}


def test_a_store_that_ignores_the_condition_of_a_write_fails(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, faulty_proxy: FaultyProxy
) -> None:
    place = s3_server.place(faulty_proxy.endpoint)
    for name, value in (place.environment() | {"BANDSCOPE_STORAGE": place.open().url}).items():
        monkeypatch.setenv(name, value)
    assert findings(bandscope("doctor").out) == dict.fromkeys(CHECKS, "ok")
    faulty_proxy.fail("/probe", "unconditional", method="PUT")
    done = bandscope("doctor")
    assert done.code == 1 and "does not support the condition If-None-Match" in done.out
    assert findings(done.out) == dict.fromkeys(CHECKS, "ok") | {"storage": "FAIL"}
    assert list(place.open().list()) == [], "the checks leave nothing"


@pytest.mark.parametrize("damage", ["one bit", "cut off", "missing"])
def test_an_embedded_model_file_that_is_not_the_published_one_fails(
    damage: str, bandscope: CommandLine, model_files: Path
) -> None:
    damaged = model_files / "bandscope-instruments.safetensors"
    data = damaged.read_bytes()
    if damage == "missing":
        damaged.unlink()
    else:
        damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if damage == "one bit" else data[:-1])

    done = bandscope("doctor")
    assert done.code == 1
    assert findings(done.out) == dict.fromkeys(CHECKS, "ok") | {"models": "FAIL"}
    assert "bandscope-instruments.safetensors of model bandscope-instruments" in done.out
    assert bandscope("models", "verify").code == 1


def test_an_untouched_copy_passes(bandscope: CommandLine, model_files: Path) -> None:
    assert bandscope("doctor").code == 0


def test_a_model_that_is_not_chosen_is_only_mentioned_as_not_here(bandscope: CommandLine) -> None:
    done = bandscope("doctor")
    assert done.code == 0 and "missing, and not needed: htdemucs" in done.out


def test_a_chosen_model_that_is_not_here_fails_with_the_command_that_gets_it(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDSCOPE_SEPARATOR", "htdemucs")
    done = bandscope("doctor")
    assert done.code == 1
    assert findings(done.out)["models"] == "FAIL" and "bandscope models pull htdemucs" in done.out


def test_without_a_dagster_home_it_tells_the_one_that_is_used(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    done = bandscope("doctor")
    assert done.code == 0 and f"export DAGSTER_HOME={tmp_path / '.bandscope' / 'dagster'}" in done.out


def test_read_only_needs_no_right_to_write_and_no_models(
    bandscope: CommandLine, model_files: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    done = bandscope("doctor", "--read-only")
    assert done.code == 0 and "no table to read yet" in done.out
    (store / "songs").mkdir(parents=True)
    (store / "songs" / "a.parquet").write_bytes(b"PAR1")
    for file in model_files.iterdir():
        file.unlink()
    before = sorted(store.rglob("*"))
    done = bandscope("doctor", "--read-only")
    assert done.code == 0
    assert findings(done.out) == {"settings": "ok", "storage": "ok"}
    assert "listing and reading work" in done.out
    assert sorted(store.rglob("*")) == before


def test_read_only_fails_where_nothing_can_be_read(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDSCOPE_STORAGE", "s3://bucket/prefix")
    monkeypatch.setenv("BANDSCOPE_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BANDSCOPE_S3_ACCESS_KEY_ID", "k")
    done = bandscope("doctor", "--read-only")
    assert done.code == 1
    assert "BANDSCOPE_S3_SECRET_ACCESS_KEY is not" in done.out
