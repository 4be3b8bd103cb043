"""Phrases and mixtures of recorded single notes with labels, for choosing bounds and for judging.

A folder of notes has ``labels.csv`` with the header ``file,instrument``; files are named ``INSTRUMENT_…``, and those of
one name are one instrument. The notes of each are split at random into halves: bounds are chosen on half "a", figures
are given for half "b".
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.tagging.instruments_network import CLASSES, SAMPLE_RATE
from bandscope_dagster.tagging.vocabulary import load_vocabulary
from training.production import rms
from training.recordings import read_audio, trimmed

Half = Literal["a", "b"]

PHRASE_S: Final = 10.0
LONGEST_NOTE_S: Final = (0.6, 2.0)  # a note is cut to a random length between these
LOUDER_DB: Final = 4.0  # of a source in a mixture, at most, and as much softer


@dataclass(frozen=True, slots=True)
class Example:
    """A phrase or a mixture: ``(frames,)`` mono float32 at ``SAMPLE_RATE``, with the classes that play in it."""

    audio: NDArray[np.float32]
    heard: frozenset[str]
    name: str  # of the instruments, as in the files' names


def class_of(instrument: str) -> str:
    """The class whose instrument in the vocabulary is that of a label.

    Raises:
        ValueError: there is none.
    """
    vocabulary = load_vocabulary()
    wanted = vocabulary.match(instrument).instrument
    for name in CLASSES:
        if vocabulary.match(name).instrument == wanted:
            return name
    raise ValueError(f"no class of the tagger is {instrument!r}")


class Notes:
    """The notes of a folder, by the instrument in their files' names."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Read every note; ``seed`` decides which half it belongs to.

        Raises:
            ValueError: a label is no class of the tagger.
        """
        self._halves: dict[Half, dict[str, list[NDArray[np.float32]]]] = {"a": {}, "b": {}}
        self.classes: dict[str, str] = {}  # name → class
        files: dict[str, list[str]] = {}
        with (folder / "labels.csv").open(newline="") as stream:
            for row in csv.DictReader(stream):
                label = row["instrument"]
                name = label if label == "percussion" else Path(row["file"]).name.split("_")[0]
                self.classes[name] = class_of(label)
                files.setdefault(name, []).append(row["file"])
        rng = np.random.default_rng(seed)
        for name, paths in sorted(files.items()):
            order = rng.permutation(sorted(paths))
            for half, chosen in (("a", order[::2]), ("b", order[1::2])):
                notes = [trimmed(read_audio(folder / str(path), SAMPLE_RATE)) for path in chosen]
                self._halves[half][name] = [note / np.abs(note).max() for note in notes if len(note)]

    def phrase(self, half: Half, name: str, rng: np.random.Generator) -> NDArray[np.float32]:
        """``(frames,)`` of ``PHRASE_S``: notes of an instrument, one after the other."""
        notes = self._halves[half][name]
        mix = np.zeros(int(PHRASE_S * SAMPLE_RATE), np.float32)
        at = 0
        while at < len(mix) - SAMPLE_RATE // 10:
            note = notes[rng.integers(len(notes))] * rng.uniform(0.4, 1)
            longest = int(rng.uniform(*LONGEST_NOTE_S) * SAMPLE_RATE)
            if len(note) > longest:
                note = note[:longest].copy()
                note[-800:] *= np.linspace(1, 0, 800)
            end = min(len(mix), at + len(note))
            mix[at:end] += note[: end - at]
            at += int(len(note) * rng.uniform(0.75, 1.05))
        return mix / np.abs(mix).max() * 0.7

    def phrases(self, half: Half, each: int, seed: int) -> list[Example]:
        """``each`` phrases of every instrument."""
        rng = np.random.default_rng(seed)
        return [
            Example(self.phrase(half, name, rng), frozenset({self.classes[name]}), name)
            for name in self.classes
            for _ in range(each)
        ]

    def mixtures(self, half: Half, count: int, seed: int) -> list[Example]:
        """``count`` mixtures, half of two and half of three instruments of different classes."""
        rng = np.random.default_rng(seed)
        names = list(self.classes)
        made: list[Example] = []
        while len(made) < count:
            chosen = rng.choice(names, 2 if len(made) % 2 == 0 else 3, replace=False)
            heard = frozenset(self.classes[str(name)] for name in chosen)
            if len(heard) < len(chosen):
                continue
            mix = np.zeros(int(PHRASE_S * SAMPLE_RATE), np.float32)
            for name in chosen:
                part = self.phrase(half, str(name), rng)
                mix += part / rms(part) * 10 ** (rng.uniform(-LOUDER_DB, LOUDER_DB) / 20)
            made.append(Example(mix / np.abs(mix).max() * 0.7, heard, "+".join(map(str, chosen))))
        return made
