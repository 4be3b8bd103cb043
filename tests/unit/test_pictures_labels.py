"""Untrusted text becomes one line that fits into a picture."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from bandscope_dagster.pictures.labels import MARKS_PER_CELL, label


@pytest.mark.parametrize(
    "text", ["piano", "עוד", "عود وناي", "二胡", "guitarra española", "E-Gitarre (verzerrt)"]
)
def test_an_ordinary_name_in_any_script_stays_as_it_is(text: str) -> None:
    assert label(text, 20) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\t c", "a b c"),
        ("\x00pi\x07ano\x7f", "pi ano"),
        ("\x1b[31mred", "[31mred"),
        ("\u202edesrever\u202c", "desrever"),
        ("half\ud83d pair", "half pair"),
        ("no\ufffecharacter", "no character"),
        ("e\u0301tude", "étude"),
    ],
)
def test_what_is_no_visible_character_becomes_a_space(text: str, shown: str) -> None:
    assert label(text, 20) == shown


@pytest.mark.parametrize("text", ["", "   ", "\n", "\u202e\u200b"])
def test_a_name_without_anything_to_see_is_a_question_mark(text: str) -> None:
    assert label(text, 20) == "?"


def test_a_long_name_is_cut_with_an_ellipsis() -> None:
    assert label("a very long name of an instrument", 12) == "a very long…"


def test_wide_characters_count_twice() -> None:
    assert label("二胡と尺八と三味線", 9) == "二胡と尺…"


def test_a_stack_of_accents_is_bounded() -> None:
    assert len(label("z" + "\u0337\u0301" * 1000, 20)) <= 20 * MARKS_PER_CELL


@given(st.text(st.characters(exclude_categories=()), max_size=100))
def test_any_text_is_one_line_that_fits_and_is_valid_xml(text: str) -> None:
    shown = label(text, 20)
    assert shown and shown.isprintable()
    assert cell_len(shown) <= 20
    element = ElementTree.Element("text")
    element.text = shown
    assert ElementTree.fromstring(ElementTree.tostring(element)).text == shown
