"""``bandscope vocabulary``: all instruments by family, or the instruments for labels, with the reasons."""

import io

import pytest
from rich.console import Console

from bandscope_dagster.cli.vocabulary import print_matches
from bandscope_dagster.tagging.vocabulary import load_vocabulary


def printed(*labels: str, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_matches(console, labels)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_without_labels_every_instrument_is_listed_with_its_family():
    lines = printed(width=1000)
    for family, instruments in load_vocabulary().families.items():
        (row,) = [line for line in lines if line.startswith(family + "  ")]
        assert row.removeprefix(family).strip() == ", ".join(instruments)
    assert lines[-1].startswith(f"{len(load_vocabulary().instruments())} instruments in 11 families.")


def test_the_families_fit_a_terminal_of_80_columns():
    assert max(map(len, printed(width=80)[:-1])) <= 80


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ("Pianos", '"Pianos" → piano (keyboards)'),
        ("soft piano", '"soft piano" → piano (keyboards): dropped: soft'),
        ("wurly", '"wurly" → electric piano (keyboards): "wurly" is a synonym'),
        (
            "warm rhodes piano",
            '"warm rhodes piano" → electric piano (keyboards): "rhodes piano" is a synonym; dropped: warm',
        ),
        ("female singer", '"female singer" → vocals (voice): "singer" means "vocals"; dropped: female'),
        (
            "background singers",
            '"background singers" → backing vocals (voice): "background singer" means "background vocals", a synonym',
        ),
        (
            "Zorblophones",
            '"Zorblophones" → "zorblophone", not in the vocabulary: stored unchanged, without a family',
        ),
        ("[bold]", '"[bold]" → "bold", not in the vocabulary: stored unchanged, without a family'),
    ],
)
def test_a_label_is_told_what_it_becomes_and_why(label: str, line: str):
    assert printed(label) == [line]


def test_each_label_has_its_line_in_the_order_given():
    assert [line.split('"')[1] for line in printed("snare", "zorb", "hi-hats")] == [
        "snare",
        "zorb",
        "hi-hats",
    ]
