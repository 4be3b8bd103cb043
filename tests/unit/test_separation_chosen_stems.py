"""The choice of stems: its text, and what follows from it for versions, digests and lineage."""

import json
from dataclasses import replace

import pytest

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.input_digests import of_stems, of_stored
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.orchestration.in_force import versions_of, words_in_force
from bandscope_dagster.pipeline.plan import SongPlanner
from bandscope_dagster.separation.chosen_stems import PARAMETER, chosen_stems, parse_stems
from bandscope_dagster.settings import Settings

ALL = ("drums", "bass", "other", "vocals")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("vocals", ("vocals",)),
        ("vocals,drums", ("drums", "vocals")),  # in the model's order: the same choice has one digest
        (" vocals , drums,vocals,", ("drums", "vocals")),
        ("-drums", ("bass", "other", "vocals")),
        ("-drums, - bass", ("other", "vocals")),
        ("drums,bass,other,vocals", None),
    ],
)
def test_a_choice_is_stems_or_all_but_some(text: str, chosen: tuple[str, ...] | None) -> None:
    assert parse_stems(text, "htdemucs_ft") == chosen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vocals,piano", "no stem 'piano'; its stems are drums, bass, other, vocals"),
        ("-piano", "no stem 'piano'; its stems are"),
        ("Vocals", "no stem 'Vocals'"),
        ("vocals,-drums", "mixes stems to compute with stems to leave out"),
        ("-drums,-bass,-other,-vocals", "leaves no stem of htdemucs"),
        (
            ",",
            "leaves no stem of htdemucs; name some of drums, bass, other, vocals, or -drums for all but drums",
        ),
    ],
)
def test_a_choice_that_the_separator_lacks_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_stems(text, "htdemucs")
    assert message in str(raised.value)


def test_the_text_of_a_choice_does_not_matter_for_versions_but_the_choice_does() -> None:
    def version(stems: str | None) -> str:
        return versions_of(Settings(separator="htdemucs", stems=stems))["stems"]

    assert version("vocals,drums") == version("drums, vocals") == version("-bass,-other") != version(None)
    assert version("drums,bass,other,vocals") == version(None)
    in_words = words_in_force(Settings(separator="htdemucs", stems="vocals,drums"))
    assert in_words["separator"] == "htdemucs, stems drums and vocals"


def test_the_choice_is_in_the_digest_and_in_the_lineage_and_its_absence_changes_neither() -> None:
    whole = ModelIdentity("htdemucs", "0" * 64, {"overlap": 0.25})
    chosen = replace(whole, params=whole.params | {PARAMETER: ["vocals"]})
    found = {}
    for model in (whole, chosen):
        planner = SongPlanner("run", 16, separator=model)
        inputs, _, params = planner._inputs("a" * 64, None)["stems"]
        lineage = planner._lineage("stems", "song", "a" * 64, inputs, model, params)
        assert inputs == of_stems("a" * 64, 16, model) == of_stored("stems", lineage, None)
        found[inputs] = chosen_stems(json.loads(lineage.params))
    assert list(found.values()) == [None, ("vocals",)], "two digests, and the choice in the lineage of one"
