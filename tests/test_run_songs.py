"""``bandscope run`` refuses at once what no run could do."""

import pytest
from command_line import CommandLine

from bandscope_dagster.models.inventory import find_model


@pytest.fixture
def bandscope(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> CommandLine:
    folder = tmp_path_factory.mktemp("platform")
    monkeypatch.setenv("BANDSCOPE_STORAGE", str(folder / "store"))
    monkeypatch.setenv("BANDSCOPE_MODELS_FOLDER", str(folder / "models"))
    monkeypatch.setenv("BANDSCOPE_SEPARATOR", "htdemucs_ft")
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "dagster"))
    return CommandLine(monkeypatch, capsys)


def test_weights_that_are_not_here_are_told_before_anything_is_begun(bandscope: CommandLine) -> None:
    done = bandscope("run")
    assert done.code == 1
    for file in find_model("htdemucs_ft").files:
        assert f"{file.name} of model htdemucs_ft is missing" in done.err and file.sha256 in done.err
    assert "bandscope models pull htdemucs_ft" in done.err
    assert "uploads" not in done.out


def test_assets_that_need_no_weights_do_not_ask_for_them(bandscope: CommandLine) -> None:
    done = bandscope("run", "--select", "songs,decoded_waveforms,instrument_tags")
    assert "there are no uploads" in done.err


def test_a_model_that_does_not_exist_is_refused_by_the_name_of_its_setting(
    bandscope: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANDSCOPE_SEPARATOR", "demucs")
    done = bandscope("run")
    assert done.code == 1
    assert "BANDSCOPE_SEPARATOR='demucs' is unknown; choose one of spleeter-2stems, htdemucs" in done.err
