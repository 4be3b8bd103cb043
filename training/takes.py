"""The takes of every origin: what goes into each bank file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from bandscope_dagster.tagging.instruments_network import SAMPLE_RATE
from training.bank import Take, class_index
from training.classes import PROGRAMS, RECORDED, STYLES, SUSTAINED, Program, Style
from training.kits import Kit
from training.negatives import EFFECTS, MAKERS
from training.patches import Patch
from training.phrases import Rng, phrase
from training.production import produced
from training.recordings import RecordedNotes
from training.soundfonts import Soundfont
from training.voices import Speaker, choir, singing, speech

SHORTEST_S, LONGEST_S = 4.0, 9.0  # of a take
PROGRAM_S: Final = 60.0  # seconds of takes of a preset, at least
CLASS_S: Final = 240.0  # seconds of takes of a class in one font
RECORDED_S: Final = 300.0  # seconds of takes of a package of recorded notes
KIT_S: Final = 90.0  # seconds of takes of a kit of recorded sounds
SPEAKER_S: Final = 120.0  # seconds of speech, and of singing, of a speaker

STYLES_OF_KITS: Final[dict[str, Style]] = {"drums": "drums", "percussion": "percussion"}


def font_takes(font: Soundfont, rng: Rng, share: float = 1.0) -> Iterator[Take]:
    """Phrases of all classes in a soundfont, and its sound effects. ``share`` of the usual seconds."""
    for name, programs in PROGRAMS.items():
        present = [program for program in programs if font.has(program)]
        for program in present:
            seconds = max(PROGRAM_S, CLASS_S / len(present)) * share
            yield from _program_takes(font, name, program, seconds, rng)
    for program in EFFECTS:
        if font.has(program):
            for _ in range(6):
                audio = font.render(program, phrase(rng, "melody", 48, 72, 6), 6, SAMPLE_RATE, rng, False)
                yield Take((), f"effect {program.number}", produced(audio, SAMPLE_RATE, rng))


def kit_takes(font: Soundfont, rng: Rng, seconds: float = CLASS_S) -> Iterator[Take]:
    """Patterns of the drum kit that is a font's only preset."""
    yield from _program_takes(font, "drums", Program(0, style="drums"), seconds, rng)


def _program_takes(font: Soundfont, name: str, program: Program, seconds: float, rng: Rng) -> Iterator[Take]:
    made = 0.0
    while made < seconds:
        length = rng.uniform(SHORTEST_S, LONGEST_S)
        notes = phrase(rng, program.style, program.lowest, program.highest, length)
        audio = font.render(program, notes, length, SAMPLE_RATE, rng, name in SUSTAINED)
        yield Take(
            (class_index(name),), f"{program.bank}:{program.number}", produced(audio, SAMPLE_RATE, rng)
        )
        made += length


def patch_takes(folder: Path, rng: Rng) -> Iterator[Take]:
    """Phrases of FreePats' instruments; ``folder`` has their ``.pat`` files, named by General MIDI's numbers from 0."""
    files = {int(path.name[:3]): path for path in sorted(folder.glob("*.pat"))}
    for name, programs in PROGRAMS.items():
        present = {
            program.number: program for program in programs if program.bank == 0 and program.number in files
        }
        for number, program in present.items():
            patch = Patch(files[number], SAMPLE_RATE)
            made = 0.0
            while made < max(PROGRAM_S, CLASS_S / len(present)):
                length = rng.uniform(SHORTEST_S, LONGEST_S)
                notes = phrase(rng, program.style, program.lowest, program.highest, length)
                audio = patch.render(notes, length, rng)
                yield Take((class_index(name),), f"0:{number}", produced(audio, SAMPLE_RATE, rng))
                made += length


def sounds_takes(name: str, kind: str, kit: Kit, rng: Rng, seconds: float) -> Iterator[Take]:
    """Patterns of a kit of recorded sounds: ``name`` is "drums" or "percussion"."""
    made = 0.0
    while made < seconds:
        length = rng.uniform(SHORTEST_S, LONGEST_S)
        audio = kit.render(phrase(rng, STYLES_OF_KITS[name], 0, 127, length), length, rng)
        yield Take((class_index(name),), kind, produced(audio, SAMPLE_RATE, rng))
        made += length


def recorded_takes(package: str, folder: Path, rng: Rng, seconds: float = RECORDED_S) -> Iterator[Take]:
    """Phrases of a package of recorded notes."""
    name = RECORDED[package]
    notes = RecordedNotes(folder, SAMPLE_RATE)
    made = 0.0
    while made < seconds:
        length = rng.uniform(SHORTEST_S, LONGEST_S)
        audio = notes.render(phrase(rng, STYLES[name], notes.lowest, notes.highest, length), length, rng)
        yield Take((class_index(name),), package, produced(audio, SAMPLE_RATE, rng))
        made += length


def voice_takes(speakers: Sequence[Speaker], rng: Rng, seconds: float = SPEAKER_S) -> Iterator[Take]:
    """Speech and singing of each speaker, and choirs of all of them."""
    for speaker in speakers:
        made = 0.0
        while made < seconds:
            length = rng.uniform(SHORTEST_S, LONGEST_S)
            for name, make in (("speech", speech), ("singing voice", singing)):
                audio = make(speaker, length, SAMPLE_RATE, rng)
                yield Take((class_index(name),), speaker.name, produced(audio, SAMPLE_RATE, rng))
            made += length
    for _ in range(int(2 * seconds / LONGEST_S)):
        audio = choir(speakers, LONGEST_S, SAMPLE_RATE, rng)
        yield Take((class_index("choir"),), "choir", produced(audio, SAMPLE_RATE, rng))


def negative_takes(rng: Rng, each: int = 160) -> Iterator[Take]:
    """``each`` takes of every synthesized sound with no instrument."""
    for make in MAKERS:
        for _ in range(each):
            audio = make(int(6 * SAMPLE_RATE), SAMPLE_RATE, rng)
            yield Take((), make.__name__, produced(np.asarray(audio, np.float32), SAMPLE_RATE, rng))
