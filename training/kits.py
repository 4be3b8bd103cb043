"""Drum and percussion sounds that were recorded one by one, played by the notes of General MIDI's kit."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from training.patches import read_patch
from training.phrases import HAND_PERCUSSION, Note, Rng
from training.recordings import read_audio, trimmed

_WORDS: Final = (
    (r"kick|bass ?drum|\bbd\b", (35, 36)),
    (r"\bside|\brim|stick", (37,)),
    (r"snare|\bsn|\bsd\b", (38, 40)),
    (r"clap", (39,)),
    (r"open", (46,)),
    (r"pedal|foot", (44,)),
    (r"hat|\bhh", (42,)),
    (r"low.*tom|floor|tom.*lo", (41, 43, 45)),
    (r"tom|\btm", (47, 48, 50)),
    (r"ride|\brd", (51, 59)),
    (r"bell|cup", (53,)),
    (r"crash|splash|china|cymbal", (49, 52, 55, 57)),
)
"""Words in the names of a kit's sounds → notes of General MIDI. The first that fits counts."""


def notes_of(name: str) -> Sequence[int]:
    """The notes that a sound of this name is for; none if the name says nothing."""
    words = re.sub(r"[_\-.]+", " ", name.lower())
    return next((notes for pattern, notes in _WORDS if re.search(pattern, words)), ())


class Kit:
    """Sounds by note."""

    def __init__(self, sounds: Mapping[int, Sequence[NDArray[np.float32]]], sample_rate: int) -> None:
        """``sounds``: note → recordings ``(frames,)`` at ``sample_rate``."""
        self.sounds = {note: list(takes) for note, takes in sounds.items() if takes}
        self._sample_rate = sample_rate
        if not self.sounds:
            raise ValueError("a kit without sounds")

    def render(self, notes: list[Note], seconds: float, rng: Rng) -> NDArray[np.float32]:
        """``(frames,)`` mono float32; a note that the kit lacks is left out. The kit is tuned up or down a bit."""
        mix = np.zeros(int(seconds * self._sample_rate), np.float32)
        ratio = 2 ** rng.normal(0, 0.12)
        for note in notes:
            takes = self.sounds.get(note.pitch)
            if not takes:
                continue
            take = takes[rng.integers(len(takes))][: 3 * self._sample_rate]
            sound = soxr.resample(take, self._sample_rate * ratio, self._sample_rate)
            start = int(note.start * self._sample_rate)
            end = min(len(mix), start + len(sound))
            if end > start:
                mix[start:end] += sound[: end - start] * (note.velocity / 127) ** 2
        return mix


def _collected(named: Sequence[tuple[str, NDArray[np.float32]]]) -> dict[int, list[NDArray[np.float32]]]:
    sounds: dict[int, list[NDArray[np.float32]]] = {}
    for name, audio in named:
        for note in notes_of(name):
            sounds.setdefault(note, []).append(audio)
    return sounds


def hydrogen_kit(folder: Path, sample_rate: int) -> Kit:
    """A drum kit of Hydrogen: ``drumkit.xml`` names the instruments and their files."""
    named: list[tuple[str, NDArray[np.float32]]] = []
    for instrument in ElementTree.parse(folder / "drumkit.xml").getroot().iter():
        if not instrument.tag.endswith("instrument"):
            continue
        name = next((child.text or "" for child in instrument if child.tag.endswith("name")), "")
        files = {child.text for child in instrument.iter() if child.tag.endswith("filename") and child.text}
        for file in sorted(files):
            if (folder / file).is_file():
                label = name if notes_of(name) else file
                named.append((label, trimmed(read_audio(folder / file, sample_rate), -50)))
    return Kit(_collected(named), sample_rate)


def folder_kit(folder: Path, pattern: str, sample_rate: int) -> Kit:
    """The files of a folder whose names match, each for the notes that its name says."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and re.search(pattern, path.name))
    return Kit(
        _collected([(path.stem, trimmed(read_audio(path, sample_rate), -50)) for path in paths]), sample_rate
    )


def percussion_kit(folder: Path, pattern: str, sample_rate: int) -> Kit:
    """The files of a folder whose names match, dealt out to the notes of hand percussion: any may follow any."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and re.search(pattern, path.name))
    sounds: dict[int, list[NDArray[np.float32]]] = {}
    for number, path in enumerate(paths):
        note = HAND_PERCUSSION[number % len(HAND_PERCUSSION)]
        sounds.setdefault(note, []).append(trimmed(read_audio(path, sample_rate), -50))
    return Kit(sounds, sample_rate)


def freepats_kit(folder: Path, sample_rate: int) -> Kit:
    """FreePats' kit: the files are named by the notes, ``056_Cow_Bell.pat``."""
    sounds: dict[int, list[NDArray[np.float32]]] = {}
    for path in sorted(folder.glob("*.pat")):
        for sample in read_patch(path):
            audio = soxr.resample(sample.audio, sample.rate, sample_rate).astype(np.float32)
            sounds.setdefault(int(path.name[:3]), []).append(audio)
    return Kit(sounds, sample_rate)
