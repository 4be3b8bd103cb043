"""tagging/prompts: the questions of each mode, and their digest for the lineage."""

import re
from importlib.resources import files

import pytest

from bandscope_dagster.tagging import prompts
from bandscope_dagster.tagging.answers.parse import parse_layers, parse_list
from bandscope_dagster.tagging.options import Mode
from bandscope_dagster.tagging.prompts import load_dialogue

MODES: tuple[Mode, ...] = ("list", "layers")


def texts(mode: Mode) -> list[str]:
    dialogue = load_dialogue(mode)
    return [dialogue.system, *(question.text for question in dialogue.questions), dialogue.repair.text]


def test_list_asks_once_and_layers_for_a_description_first():
    assert [question.name for question in load_dialogue("list").questions] == ["list"]
    assert [question.name for question in load_dialogue("layers").questions] == ["description", "layers"]
    assert load_dialogue("list").parse is parse_list
    assert load_dialogue("layers").parse is parse_layers


def test_every_text_beside_the_module_is_asked_in_some_mode():
    folder = files(prompts)
    written = {file.read_text("utf-8").strip() for file in folder.iterdir() if file.name.endswith(".txt")}
    assert {text for mode in MODES for text in texts(mode)} == written
    assert all(written)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_not_heard_is_asked_for_as_an_empty_list(mode: Mode):
    dialogue = load_dialogue(mode)
    for question in (dialogue.questions[-1], dialogue.repair):
        assert "JSON" in question.text and "empty list" in question.text


def test_the_layers_are_asked_for_by_the_names_that_the_parser_reads():
    dialogue = load_dialogue("layers")
    for question in (dialogue.questions[-1], dialogue.repair):
        keys = re.findall(r'"(\w+)"', question.text)
        assert set(keys) == {"background", "middle_ground", "foreground"}
        answer = "{" + ", ".join(f'"{key}": ["{key} horn"]' for key in keys) + "}"
        assert {(tag.layer, tag.label) for tag in dialogue.parse(answer).tags} == {
            (key, f"{key} horn") for key in keys
        }


@pytest.mark.parametrize("mode", MODES)
def test_the_digest_is_that_of_the_texts(mode: Mode, monkeypatch: pytest.MonkeyPatch, tmp_path):
    before = load_dialogue(mode).sha256
    assert before == load_dialogue(mode).sha256
    for file in files(prompts).iterdir():
        if file.name.endswith(".txt"):
            (tmp_path / file.name).write_text(file.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(prompts, "files", lambda _: tmp_path)
    assert load_dialogue(mode).sha256 == before
    for name in ("system", *(question.name for question in load_dialogue(mode).questions), f"{mode}_repair"):
        text = (tmp_path / f"{name}.txt").read_text("utf-8")
        (tmp_path / f"{name}.txt").write_text(text + " Please.", "utf-8")
        assert load_dialogue(mode).sha256 != before, name
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    assert load_dialogue("list").sha256 != load_dialogue("layers").sha256
