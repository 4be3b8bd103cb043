"""tagging/registry: a tagger by its name, and a clear refusal of any other."""

import subprocess
import sys

import pytest

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.tagging.registry import load_tagger


def test_the_embedded_tagger_loads_by_its_name():
    tagger = load_tagger("musicnn", "cpu")
    assert tagger.identity.name == "musicnn"
    assert tagger.plan.sample_rate == 16_000


def test_an_unknown_tagger_is_refused_with_the_setting_and_what_it_accepts():
    with pytest.raises(SettingsError, match=r"BANDSCOPE_TAGGER='shazam'.*choose one of musicnn"):
        load_tagger("shazam", "cpu")


def test_importing_the_registry_does_not_import_torch():
    code = "import sys, bandscope_dagster.tagging.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
