"""tagging/vocabulary: every label becomes one instrument, and none is lost."""

import tomllib
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.tagging.musicnn import INSTRUMENT_TAGS
from bandscope_dagster.tagging.vocabulary import Match, Vocabulary, load_vocabulary, normalize

VOCABULARY = load_vocabulary()
ENTRIES = tomllib.loads(files("bandscope_dagster.tagging").joinpath("vocabulary.toml").read_text("utf-8"))
QUALIFIERS = [normalize(qualifier) for qualifier in ENTRIES["qualifiers"]]


def test_every_canonical_name_and_synonym_finds_its_own_entry():
    for family, instruments in ENTRIES["families"].items():
        for instrument, synonyms in instruments.items():
            for phrase in (instrument, *synonyms):
                assert VOCABULARY.match(phrase) == Match(instrument, family), phrase


def test_no_phrase_is_written_twice():
    phrases = [
        normalize(phrase)
        for instruments in ENTRIES["families"].values()
        for instrument, synonyms in instruments.items()
        for phrase in (instrument, *synonyms)
    ]
    assert sorted(phrases) == sorted(set(phrases))


def test_an_instrument_is_in_one_family_only():
    names = [name for instruments in ENTRIES["families"].values() for name in instruments]
    assert len(names) == len(set(names)) == len(VOCABULARY.instruments())


def test_qualifiers_are_single_words_that_name_no_instrument():
    assert all(" " not in qualifier for qualifier in QUALIFIERS)
    assert [word for word in QUALIFIERS if VOCABULARY.match(word).family is not None] == []


def test_two_instruments_cannot_share_a_synonym():
    with pytest.raises(ValueError, match=r"'Fiddles' stands for both 'violin' and 'viola'"):
        Vocabulary({"bowed strings": {"violin": ["fiddle"], "viola": ["Fiddles"]}})


def test_the_labels_of_musicnn_become_thirteen_instruments():
    matches = [VOCABULARY.match(tag) for tag in INSTRUMENT_TAGS]
    assert all(match.family is not None for match in matches)
    assert {match.instrument for match in matches} == {
        "guitar", "strings", "drums", "piano", "violin", "synthesizer", "harpsichord", "flute", "sitar",
        "harp", "cello", "choir", "vocals",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("label", "instrument"),
    [
        ("Hi-Hats", "hi hat"),
        ("GUITARS", "guitar"),
        ("Cajón", "cajon"),
        ("double basses", "double bass"),
        ("Brass", "brass"),
        ("808s", "drum machine"),
        ("male vocal", "vocals"),
        ("beats", "drums"),
        ("choral", "choir"),
    ],
)
def test_case_accents_punctuation_and_plurals_do_not_matter(label: str, instrument: str):
    assert VOCABULARY.match(label).instrument == instrument


@pytest.mark.parametrize(
    ("label", "instrument"),
    [
        ("a soft piano melody", "piano"),
        ("Distorted electric guitar", "electric guitar"),
        ("electric violin", "violin"),
        ("electric bass", "bass guitar"),
        ("lead synth", "synth lead"),
        ("background vocals", "backing vocals"),
    ],
)
def test_as_few_qualifiers_are_dropped_as_give_a_known_phrase(label: str, instrument: str):
    assert VOCABULARY.match(label).instrument == instrument


@pytest.mark.parametrize("label", ["no vocals", "hurdy gurdy", "lead", "钢琴", "♪"])
def test_an_unknown_label_is_kept_and_unmapped(label: str):
    match = VOCABULARY.match(label)
    assert match.family is None
    assert match.instrument == (normalize(label) or label)


@given(st.text(min_size=1).filter(str.strip))
def test_no_label_is_ever_lost(label: str):
    match = VOCABULARY.match(label)
    assert match.instrument != ""
    assert match == VOCABULARY.match(label)


@given(st.sampled_from(sorted(VOCABULARY.instruments())), st.sampled_from(["lead", "soft", "the"]))
def test_a_qualified_instrument_in_capitals_is_still_known(instrument: str, qualifier: str):
    assert VOCABULARY.match(f"{qualifier} {instrument}".upper()).family is not None
