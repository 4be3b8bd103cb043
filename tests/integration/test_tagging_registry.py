"""tagging/registry: taggers by name, and a clear error for any other name."""

import subprocess
import sys
from pathlib import Path

import pytest

from bandscope_dagster.errors import ModelFileError, SettingsError
from bandscope_dagster.models.inventory import load_inventory
from bandscope_dagster.settings import Settings
from bandscope_dagster.tagging.options import TaggingOptions
from bandscope_dagster.tagging.presence_rule import AUDIBLE_DB, PresenceRule
from bandscope_dagster.tagging.registry import TAGGERS, load_tagger, present_from

NO_CHOICE = TaggingOptions()


EMBEDDED = [name for name in TAGGERS if load_inventory()[name].embedded]


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_tagger_loads_by_its_name(name: str, tmp_path: Path):
    tagger = load_tagger(name, tmp_path, "cpu", NO_CHOICE)
    assert tagger.identity.name == name
    assert tagger.plan.sample_rate == 16_000


def test_the_default_is_the_embedded_tagger_of_our_own():
    assert EMBEDDED == ["bandscope-instruments", "musicnn"]
    assert Settings(storage="unused").tagger == EMBEDDED[0]


@pytest.mark.parametrize("name", [name for name in TAGGERS if name not in EMBEDDED])
def test_a_tagger_without_weights_names_the_command_that_gets_them(name: str, tmp_path: Path):
    with pytest.raises(ModelFileError, match=f"bandscope models pull {name}"):
        load_tagger(name, tmp_path, "cpu", NO_CHOICE)


def test_an_unknown_tagger_is_refused_with_the_setting_and_its_accepted_values(tmp_path: Path):
    with pytest.raises(
        SettingsError, match=r"BANDSCOPE_TAGGER='shazam'.*choose one of bandscope-instruments, musicnn"
    ):
        load_tagger("shazam", tmp_path, "cpu", NO_CHOICE)


def test_every_rule_of_presence_belongs_to_a_tagger_or_to_all_others():
    assert {"bandscope-instruments", None} < set(present_from(None, AUDIBLE_DB)) <= {*TAGGERS, None}


def test_only_our_own_tagger_is_judged_by_a_share_of_its_windows():
    rules = present_from(None, AUDIBLE_DB)
    shares = {name: rules.get(name, rules[None]).best_share for name in TAGGERS}
    assert shares == dict.fromkeys(TAGGERS) | {"bandscope-instruments": 0.25}


def test_the_setting_is_one_bound_for_all_taggers_and_instruments():
    assert present_from(0.3, AUDIBLE_DB) == {None: PresenceRule(0.3)}


def test_importing_the_registry_does_not_import_torch():
    code = "import sys, bandscope_dagster.tagging.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
