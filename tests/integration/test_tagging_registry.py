"""tagging/registry: taggers by name, and a clear error for any other name."""

import subprocess
import sys
from pathlib import Path

import pytest

from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.registry import PRESENT_FROM, TAGGERS, load_tagger

NO_CHOICE = TaggingOptions()


def test_the_embedded_tagger_loads_by_its_name(tmp_path: Path):
    tagger = load_tagger("musicnn", tmp_path, "cpu", NO_CHOICE)
    assert tagger.identity.name == "musicnn"
    assert tagger.plan.sample_rate == 16_000


@pytest.mark.parametrize("name", [name for name in TAGGERS if name != "musicnn"])
def test_a_tagger_without_weights_names_the_command_that_gets_them(name: str, tmp_path: Path):
    with pytest.raises(ModelFileError, match=f"bandscope models pull {name}"):
        load_tagger(name, tmp_path, "cpu", NO_CHOICE)


def test_an_unknown_tagger_is_refused_with_the_setting_and_its_accepted_values(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"BANDSCOPE_TAGGER='shazam'.*choose one of musicnn"):
        load_tagger("shazam", tmp_path, "cpu", NO_CHOICE)


def test_every_threshold_belongs_to_a_tagger_or_to_all_others():
    assert set(PRESENT_FROM) <= {*TAGGERS, None}


def test_importing_the_registry_does_not_import_torch():
    code = "import sys, bandscope_dagster.tagging.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
