"""tagging/audioset: the classes of AudioSet that become tags."""

import pytest

from bandscope_dagster.tagging.audioset import INSTRUMENT_CLASSES


def test_there_are_95_classes_and_none_twice():
    # By index: 27 to 37 voices; 40, 62 and 63 sounds of the body; 92 the cowbell; 139 to 215 below "Musical
    # instrument"; 218, 254 and 255 voices that the ontology has below "Music".
    assert len(set(INSTRUMENT_CLASSES)) == len(INSTRUMENT_CLASSES) == 11 + 3 + 1 + 77 + 3


def test_names_are_spelt_as_audioset_displays_them():
    assert {
        "Hi-hat",
        "Violin, fiddle",
        "Marimba, xylophone",
        "Keyboard (musical)",
        "Steel guitar, slide guitar",
        "Wind instrument, woodwind instrument",
        "Scratching (performance technique)",
    } <= set(INSTRUMENT_CLASSES)


@pytest.mark.parametrize(
    "name",
    [
        "Music", "Musical instrument", "Speech", "Speech synthesizer", "Screaming", "Opera", "Rock music",
        "Drum and bass", "Effects unit", "Chorus effect", "Distortion", "Reverberation", "Sound effect", "Noise",
        "White noise", "Sine wave", "Whistle", "Applause", "Computer keyboard", "Train horn", "Keys jangling",
        "Rattle", "Scratch", "Silence",
    ],
)  # fmt: skip
def test_what_names_no_instrument_is_left_out(name: str):
    assert name not in INSTRUMENT_CLASSES
