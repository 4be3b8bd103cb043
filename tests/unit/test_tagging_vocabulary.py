"""tagging/vocabulary: every label maps to one instrument, with the reason, and no label is lost."""

import tomllib
from collections.abc import Iterator
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instrument_labels import GENERAL_MIDI, GENERAL_MIDI_DRUMS, IRMAS, MEDLEYDB, MUSDB, OPENMIC, SAID

from bandscope_dagster.tagging.audioset import INSTRUMENT_CLASSES
from bandscope_dagster.tagging.instruments_network import CLASSES
from bandscope_dagster.tagging.musicnn import INSTRUMENT_TAGS
from bandscope_dagster.tagging.vocabulary import LONGEST_NAME, Match, Vocabulary, load_vocabulary, normalize

VOCABULARY = load_vocabulary()
TABLES = tomllib.loads(files("bandscope_dagster.tagging").joinpath("vocabulary.toml").read_text("utf-8"))
QUALIFIERS: list[str] = TABLES["qualifiers"]


def entries() -> Iterator[tuple[str, str, str]]:
    """(family, instrument, phrase) of everything in the file, translations last."""
    for family, instruments in TABLES["families"].items():
        for instrument, synonyms in instruments.items():
            for phrase in (instrument, *synonyms, *TABLES["translations"].get(instrument, ())):
                yield family, instrument, phrase


ENGLISH = [
    phrase
    for instruments in TABLES["families"].values()
    for instrument, synonyms in instruments.items()
    for phrase in (instrument, *synonyms)
]
PHRASES = [phrase for _, _, phrase in entries()]


def unmapped(labels: tuple[str, ...]) -> list[str]:
    return [label for label in labels if not VOCABULARY.match(label).mapped]


def test_every_instrument_and_voice_of_audioset_is_mapped():
    assert unmapped(INSTRUMENT_CLASSES) == []


def test_every_instrument_tag_of_musicnn_is_mapped():
    assert unmapped(INSTRUMENT_TAGS) == []
    assert {VOCABULARY.match(tag).instrument for tag in INSTRUMENT_TAGS} == {
        "guitar", "strings", "drums", "piano", "violin", "synthesizer", "harpsichord", "flute", "sitar",
        "harp", "cello", "choir", "vocals",
    }  # fmt: skip


def test_every_class_of_our_own_tagger_is_an_instrument_with_a_family():
    assert unmapped(CLASSES) == []
    instruments = [VOCABULARY.match(label).instrument for label in CLASSES]
    renamed = {
        label: instrument
        for label, instrument in zip(CLASSES, instruments, strict=True)
        if label != instrument
    }
    assert renamed == {
        "distorted guitar": "electric guitar", "string section": "strings", "brass section": "brass",
        "bells": "bell", "singing voice": "vocals", "speech": "spoken word",
    }  # fmt: skip
    assert len(set(instruments)) == len(CLASSES) - 1, "two labels mean an electric guitar"


def test_every_sound_of_general_midi_is_mapped():
    assert (len(GENERAL_MIDI), len(GENERAL_MIDI_DRUMS)) == (128, 47)
    assert unmapped(GENERAL_MIDI + GENERAL_MIDI_DRUMS) == []


@pytest.mark.parametrize(
    "labels", [OPENMIC, IRMAS, MEDLEYDB, MUSDB], ids=["OpenMIC", "IRMAS", "MedleyDB", "MUSDB"]
)
def test_the_instruments_of_the_fields_data_sets_are_mapped(labels: tuple[str, ...]):
    assert unmapped(labels) == []


@pytest.mark.parametrize("instrument", SAID)
def test_a_label_maps_to_the_instrument_that_it_means(instrument: str):
    became = {label: VOCABULARY.match(label).instrument for label in SAID[instrument]}
    assert became == dict.fromkeys(SAID[instrument], instrument)


@pytest.mark.parametrize(
    ("label", "instrument", "family"),
    [
        ("Plucked string instrument", "plucked strings", "plucked strings"),
        ("Bowed string instrument", "strings", "bowed strings"),
        ("Wind instrument, woodwind instrument", "woodwinds", "woodwind"),
        ("Brass instrument", "brass", "brass"),
        ("Percussion", "percussion", "percussion"),
        ("Marimba, xylophone", "mallets", "pitched percussion"),
        ("Orchestra", "orchestra", "ensemble"),
        ("Vocal music", "vocals", "voice"),
        ("Strum", "guitar", "plucked strings"),
        ("Tapping (guitar technique)", "guitar", "plucked strings"),
        ("Pizzicato", "strings", "bowed strings"),
        ("Rimshot", "snare drum", "percussion"),
        ("Drum roll", "snare drum", "percussion"),
        ("Scratching (performance technique)", "turntables", "electronic"),
        ("Bicycle bell", "bell", "pitched percussion"),
        ("Wind chime", "wind chimes", "pitched percussion"),
        ("Synthetic singing", "synthetic vocals", "voice"),
    ],
)
def test_groups_and_techniques_of_audioset_map_as_its_ontology_has_them(
    label: str, instrument: str, family: str
):
    match = VOCABULARY.match(label)
    assert (match.instrument, match.family) == (instrument, family)


def test_every_phrase_finds_its_own_entry_and_none_is_written_twice():
    for family, instrument, phrase in entries():
        match = VOCABULARY.match(phrase)
        assert (match.instrument, match.family, match.synonym, match.dropped) == (
            instrument,
            family,
            phrase,
            (),
        )


def test_an_instrument_is_in_one_family_only():
    names = [name for instruments in TABLES["families"].values() for name in instruments]
    assert len(names) == len(set(names)) == len(VOCABULARY.instruments())
    assert VOCABULARY.families == {family: tuple(names) for family, names in TABLES["families"].items()}


def test_qualifiers_are_single_words_and_none_is_written_twice():
    assert [qualifier for qualifier in QUALIFIERS if " " in normalize(qualifier)] == []
    assert len(QUALIFIERS) == len(set(map(normalize, QUALIFIERS)))


def test_a_word_is_replaced_in_one_step():
    words = TABLES["words"]
    assert [word for word in (*words, *words.values()) if " " in normalize(word)] == []
    assert words.keys().isdisjoint(words.values())


def test_few_qualifiers_are_also_names_of_instruments():
    assert {word for word in QUALIFIERS if VOCABULARY.match(word).mapped} == {
        "808", "909", "beat", "drone", "ensemble", "falsetto", "female", "harmony", "male", "orchestral", "pizzicato",
        "sample", "screaming", "strum", "strumming",
    }  # fmt: skip


@pytest.mark.parametrize("synonym", ["Fiddles", "fid-dle", "singing fiddle"])
def test_two_instruments_cannot_share_a_synonym(synonym: str):
    families = {"bowed strings": {"violin": ["fiddle", "vocal fiddle"], "viola": [synonym]}}
    with pytest.raises(ValueError, match=rf"{synonym!r} is a synonym of both 'violin' and 'viola'"):
        Vocabulary(families, words={"singing": "vocal"})


def test_a_translation_of_no_instrument_is_an_error():
    with pytest.raises(ValueError, match=r"translations of 'violn', which is in no family"):
        Vocabulary({"bowed strings": {"violin": []}}, translations={"violn": ["Geige"]})


def test_a_translation_cannot_be_the_name_of_another_instrument():
    families = {"percussion": {"claves": []}, "keyboards": {"harpsichord": []}}
    with pytest.raises(ValueError, match=r"'clave' is a synonym of both 'claves' and 'harpsichord'"):
        Vocabulary(families, translations={"harpsichord": ["clave"]})


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("warm Rhodes piano", Match("electric piano", "keyboards", "rhodes piano", "rhode piano", ("warm",))),
        ("Pianos", Match("piano", "keyboards", "piano", "piano")),
        ("soft piano chords", Match("piano", "keyboards", "piano", "piano", ("soft", "chord"))),
        ("female singer", Match("vocals", "voice", "vocals", "singer", ("female",))),
        ("drumkit", Match("drums", "percussion", "drum kit", "drumkit")),
        (
            "guitar (acoustic)",
            Match("acoustic guitar", "plucked strings", "acoustic guitar", "acoustic guitar"),
        ),
        (
            "strings (violin, cello)",
            Match("strings", "bowed strings", "strings", "string", ("violin", "cello")),
        ),
    ],
)
def test_a_match_has_the_words_that_were_found_and_dropped(label: str, expected: Match):
    assert VOCABULARY.match(label) == expected
    assert expected.mapped


@pytest.mark.parametrize(
    ("label", "instrument"),
    [
        ("electric violin", "violin"),
        ("electric bass", "bass guitar"),
        ("acoustic bass guitar", "bass guitar"),
        ("lead synth", "synth lead"),
        ("lead vocals", "vocals"),
        ("background vocals", "backing vocals"),
        ("808", "drum machine"),
        ("808 kick", "kick drum"),
        ("guitar harmonies", "guitar"),
        ("harmonies", "backing vocals"),
        ("pizzicato cello", "cello"),
    ],
)
def test_as_few_qualifiers_as_possible_are_dropped(label: str, instrument: str):
    assert VOCABULARY.match(label).instrument == instrument


def test_of_two_phrases_of_one_length_the_later_one_matches():
    vocabulary = Vocabulary({"family": {"beat": [], "sample": []}}, ["beat", "sample"])
    assert vocabulary.match("beat sample").instrument == "sample"
    assert vocabulary.match("sample beat").instrument == "beat"


@pytest.mark.parametrize(
    "label",
    [
        "bassoonist",
        "pianola",
        "trumpeter",
        "guitarron",
        "drummer",
        "harpist",
        "viol",
        "organic",
        "hornet",
        "contrabasse x",
    ],
)
def test_a_part_of_a_word_is_never_found(label: str):
    assert not VOCABULARY.match(label).mapped


@pytest.mark.parametrize(
    "label",
    [
        "guitar and piano",
        "drums and bass",
        "piano, strings",
        "guitar & bass",
        "kick/snare",
        "808 and piano",
        "钢琴和吉他",
    ],
)
def test_a_phrase_of_several_instruments_is_not_split(label: str):
    assert not VOCABULARY.match(label).mapped


@pytest.mark.parametrize(
    "label", ["no vocals", "no drums", "without guitar", "drums (none)", "vocals (no lyrics)"]
)
def test_a_negated_instrument_is_unmapped(label: str):
    assert not VOCABULARY.match(label).mapped


@pytest.mark.parametrize(
    ("label", "kept"),
    [
        ("Zorblophones", "zorblophone"),
        ("lead", "lead"),
        ("music", "music"),
        ("Rock music", "rock music"),
        ("computer keyboard", "computer keyboard"),
        ("chorus effect", "chorus effect"),
        ("サントゥール!", "サントゥール"),
        ("♪ ", "♪"),
        (" ", " "),
        ("", ""),
    ],
)
def test_an_unknown_label_is_kept_and_unmapped(label: str, kept: str):
    match = VOCABULARY.match(label)
    assert match == Match(kept)
    assert not match.mapped and match.family is None


def test_prose_is_unmapped():
    within = "the " * (LONGEST_NAME - 1) + "piano"
    assert VOCABULARY.match(within).instrument == "piano"
    assert not VOCABULARY.match("the " + within).mapped
    assert not VOCABULARY.match("the " * 100_000 + "piano").mapped


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  Hi-Hats ", "hi hat"),
        ("GUITARS & Basses", "guitar and bass"),
        ("Cajón", "cajon"),
        ("flûte à bec", "flute a bec"),
        ("the singer\u2019s voice", "the singer voice"),
        ("große Trommel", "grosse trommel"),
        ("mallet_percussion", "mallet percussion"),
        ("chorus, brass, bass, various", "chorus brass bass various"),
        ("choruses, basses, harmonies, boxes, erhus, 808s", "chorus bass harmony box erhu 808"),
        ("电吉他\uff08失真\uff09", "电吉他 失真"),
        ("ギター", "ギター"),
        ("\uff30iano", "piano"),
        ("🎸\ufe0f guitar", "guitar"),
    ],
)
def test_labels_are_normalised(text: str, normal: str):
    assert normalize(text) == normal


ANY_LABEL = st.text() | st.lists(
    st.sampled_from([*PHRASES, *QUALIFIERS, "(", ")", "\uff08", "\u2019s", "&", "-", "no", "zorb"]),
    max_size=8,
).map(" ".join)


@given(ANY_LABEL)
def test_normalising_twice_changes_nothing(label: str):
    assert normalize(normalize(label)) == normalize(label)


@given(ANY_LABEL)
def test_any_label_has_a_match_and_no_word_of_it_is_lost(label: str):
    match = VOCABULARY.match(label)
    assert match == VOCABULARY.match(label)
    if match.mapped:
        assert sorted([*match.found.split(), *match.dropped]) == sorted(normalize(label).split())
    else:
        assert match == Match(normalize(label) or label.strip() or label)


def test_every_phrase_is_known_in_capitals():
    assert [phrase for phrase in PHRASES if VOCABULARY.match(phrase.upper()).synonym != phrase] == []


def plural(phrase: str) -> str:
    one = normalize(phrase)
    if one.endswith("y") and one[-2] not in "aeo":
        return one[:-1] + "ies"
    return one + ("es" if one.endswith(("s", "x", "ch", "sh")) else "s")


def test_every_english_phrase_is_known_in_the_plural():
    unknown = {phrase for phrase in ENGLISH if VOCABULARY.match(plural(phrase)).synonym != phrase}
    # Too short for a plural; and "kemenches" could also be the plural of "kemench".
    assert unknown == {"ud", "ep", "b3", "hammond b3", "dj", "mc", "gu", "kemenche", "afoxe"}


@given(st.sampled_from(PHRASES), st.sampled_from(QUALIFIERS))
def test_a_phrase_after_a_qualifier_is_still_known_unless_both_are_another(phrase: str, qualifier: str):
    match = VOCABULARY.match(f"{qualifier} {phrase}")
    if match.dropped:
        assert (match.synonym, match.dropped) == (phrase, (normalize(qualifier),))
    else:
        assert match.found == normalize(f"{qualifier} {phrase}")
