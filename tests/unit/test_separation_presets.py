"""Presets: what a file may say, and what follows from it."""

from pathlib import Path

import pytest

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.orchestration.in_force import parameters_in_force, versions_of, words_in_force
from bandscope_dagster.orchestration.resources import models_here
from bandscope_dagster.separation.presets import (
    BUILT_IN,
    Preset,
    find_preset,
    model_names,
    name_of,
    parse_preset,
)
from bandscope_dagster.settings import Settings

MIXED = """
[stems]
vocals = "htdemucs_ft"
drums = ["htdemucs", "htdemucs_ft"]
other = "rest"
"""


def preset_file(folder: Path, text: str = MIXED, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_a_stem_has_one_model_or_several_or_is_the_rest(tmp_path: Path) -> None:
    preset = find_preset(preset_file(tmp_path))
    assert preset == Preset(
        "mine", {"vocals": ("htdemucs_ft",), "drums": ("htdemucs", "htdemucs_ft"), "other": ()}
    )
    assert preset.stems == ("vocals", "drums", "other")
    assert preset.models() == {"htdemucs_ft": ("drums", "vocals"), "htdemucs": ("drums",)}
    assert preset.models(["vocals"]) == {"htdemucs_ft": ("vocals",)}
    assert preset.models(["other"]) == preset.models(), "the rest needs all others"
    assert preset.needed(["drums", "vocals"]) == ("vocals", "drums")


def test_a_separator_is_a_model_or_needs_the_models_of_a_preset() -> None:
    assert model_names("htdemucs") == ["htdemucs"] and name_of("htdemucs") == "htdemucs"
    assert model_names("six-stems") == ["htdemucs_ft", "htdemucs_6s"]
    assert model_names("six-stems", ["piano"]) == ["htdemucs_6s"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_presets_of_the_package_are_whole_and_name_models_that_there_are(name: str) -> None:
    preset = find_preset(name)
    assert preset is not None and preset.name == name and preset.is_whole
    assert all(find_model(model).kind == "separator" for model in preset.models())


def test_a_preset_that_leaves_something_out_is_not_whole() -> None:
    assert not parse_preset('stems = {vocals = "htdemucs", drums = "htdemucs"}', "file", "x").is_whole


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stems = ", "not valid TOML: Invalid value (at end of document)"),
        ("", "stems: missing; it is a table with a line for each stem, such as vocals = "),
        ("[stems]", "stems: missing"),
        ('stem = 1\n[stems]\nvocals = "htdemucs"', "stem: no such key; a preset has name and stems"),
        ('name = "A b"\n[stems]\nvocals = "htdemucs"', "name = 'A b': a name has 1 to 64 of a-z, 0-9"),
        ('name = 1\n[stems]\nvocals = "htdemucs"', "name = 1: a name has"),
        (
            '[stems]\nvocals = "htdemux"',
            "stems.vocals = 'htdemux': there is no model 'htdemux' (models with this",
        ),
        (
            '[stems]\nguitar = "htdemucs"',
            "htdemucs has no stem 'guitar', only drums, bass, other, vocals (models",
        ),
        (
            '[stems]\nguitar = "htdemucs"',
            "models with this stem: htdemucs_6s, bs-roformer-sw; or 'rest' for what the others",
        ),
        ('[stems]\nflute = "htdemucs"', "models with this stem: none"),
        ('[stems]\nvocals = "musicnn"', "there is no model 'musicnn'"),
        ("[stems]\nvocals = 3", "stems.vocals = 3: it must be the name of a model or a list of names"),
        ("[stems]\nvocals = []", "stems.vocals = []: it must be the name of a model or a list of names"),
        ("[stems]\nvocals = [[]]", "it must be the name of a model"),
        ('[stems]\nvocals = ["htdemucs", "htdemucs"]', "htdemucs is listed twice"),
        ('[stems]\nvocals = ["htdemucs", "rest"]', "the rest cannot be part of a mean"),
        ('[stems]\nvocals = "rest"', "stems.vocals: the rest needs another stem that a model computes"),
        (
            '[stems]\nvocals = "htdemucs"\na = "rest"\nb = "rest"',
            "stems.b: only one stem can be the rest, and a is",
        ),
        ('[stems]\n"../x" = "htdemucs"', "a stem's name has 1 to 32 of a-z, 0-9"),
        ('[stems]\nmixture = "htdemucs"', "and is not mixture or rest"),
    ],
)
def test_a_file_that_is_no_preset_is_refused_with_file_key_and_what_is_allowed(
    text: str, problem: str, tmp_path: Path
) -> None:
    path = preset_file(tmp_path, text)
    with pytest.raises(SettingsError) as raised:
        find_preset(path)
    assert path in str(raised.value) and problem in str(raised.value)


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = preset_file(tmp_path, 'name = "A"\n[stems]\nvocals = "x"\nguitar = "htdemucs"')
    with pytest.raises(SettingsError) as raised:
        find_preset(path)
    assert str(raised.value).count(path) == 3


@pytest.mark.parametrize("name", ["htdemucs", "karaoke"])
def test_a_preset_cannot_take_the_name_of_another_separator(name: str, tmp_path: Path) -> None:
    path = preset_file(tmp_path, f'name = "{name}"\n[stems]\nvocals = "htdemucs_ft"')
    with pytest.raises(SettingsError, match="is the name of another separator"):
        find_preset(path)


def test_a_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml cannot be read: No such file"):
        find_preset(str(tmp_path / "missing.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="it is not UTF-8 text"):
        find_preset(str(tmp_path / "binary.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        find_preset(str(tmp_path / "folder.toml"))


def test_the_settings_take_a_preset_and_a_choice_of_its_stems(tmp_path: Path) -> None:
    path = preset_file(tmp_path)
    settings = Settings(separator=path)
    assert [model.name for model in models_here(settings, ["stems"])] == ["htdemucs_ft", "htdemucs"]
    chosen = Settings(separator=path, stems="vocals")
    assert [model.name for model in models_here(chosen, ["stems"])] == ["htdemucs_ft"]
    assert Settings(separator=path, stems="-other").separation.stems == ("vocals", "drums")
    with pytest.raises(ValueError, match="mine has no stem 'bass'; its stems are vocals, drums, other"):
        Settings(separator=path, stems="bass")
    with pytest.raises(ValueError, match="cannot be read"):
        Settings(separator=str(tmp_path / "missing.toml"))
    assert words_in_force(settings)["separator"] == "mine"


def test_what_a_preset_says_decides_the_version_and_where_it_is_does_not(tmp_path: Path) -> None:
    def version(text: str, name: str) -> str:
        (tmp_path / name).mkdir()
        return versions_of(Settings(separator=preset_file(tmp_path / name, text)))["stems"]

    same, moved, other = (
        version(MIXED, "a"),
        version(MIXED, "b"),
        version(MIXED.replace("drums", "bass"), "c"),
    )
    assert same == moved != other
    parameters = parameters_in_force(Settings(separator="karaoke"))["stems"]
    assert parameters["weights"] == {"htdemucs_ft": find_model("htdemucs_ft").sha256}
