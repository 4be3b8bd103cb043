"""Make up what is played: phrases of one instrument, drum patterns, and songs whose tracks share tempo and chords."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.classes import Style

Rng = np.random.Generator

SCALES: Final = (
    (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 3, 5, 7, 10), (0, 2, 4, 7, 9), (0, 2, 3, 5, 7, 9, 10),
    (0, 2, 3, 5, 7, 8, 11), tuple(range(12)),
)  # fmt: skip
CHORDS: Final = (
    (0, 4, 7), (0, 3, 7), (0, 4, 7, 11), (0, 3, 7, 10), (0, 4, 7, 10), (0, 5, 7), (0, 7), (0, 12), (0, 4, 7, 12, 16),
    (0, 7, 12, 16), (0, 3), (0, 9),
)  # fmt: skip
PROGRESSIONS: Final = (
    (0, 5, 7, 0), (0, 9, 5, 7), (0, 7, 9, 5), (9, 5, 0, 7), (0, 0, 5, 5), (2, 7, 0, 0), (0, 10, 5, 0), (0, 3, 10, 5),
)  # fmt: skip
"""Roots of four bars, in semitones above the key's."""

KICKS, SNARES, HATS, CRASHES = (35, 36), (37, 38, 39, 40), (42, 44, 46, 51, 53), (49, 52, 55, 57)
TOMS: Final = (41, 43, 45, 47, 48, 50)
HAND_PERCUSSION: Final = (
    39, 54, 56, 58, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 73, 74, 75, 76, 77, 78, 79, 80, 81,
)  # fmt: skip
"""Notes of General MIDI's drum kit."""


@dataclass(frozen=True, slots=True)
class Note:
    """One note; times in seconds."""

    start: float
    length: float
    pitch: int  # MIDI note
    velocity: int  # 1 … 127


@dataclass(frozen=True, slots=True)
class Song:
    """What the tracks of a song share."""

    beat: float  # seconds
    key: int  # pitch class, 0 … 11
    scale: tuple[int, ...]
    roots: tuple[int, ...]  # of its bars, which have four beats, in semitones above the key

    @classmethod
    def random(cls, rng: Rng) -> "Song":
        """A song of 70 to 180 beats a minute."""
        scale = SCALES[rng.integers(len(SCALES) - 1)]
        roots = PROGRESSIONS[rng.integers(len(PROGRESSIONS))]
        return cls(60 / rng.uniform(70, 180), int(rng.integers(12)), scale, roots)

    def root_at(self, time: float) -> int:
        """The pitch class of the chord at ``time`` in seconds."""
        bar = int(time / self.beat) // 4
        return (self.key + self.roots[bar % len(self.roots)]) % 12


def phrase(
    rng: Rng, style: Style, lowest: int, highest: int, seconds: float, song: Song | None = None
) -> list[Note]:
    """``seconds`` of notes between two MIDI notes, in the rhythm and harmony of ``song`` if there is one."""
    if style == "drums":
        return _drums(rng, seconds, song)
    if style == "percussion":
        return _percussion(rng, seconds, song)
    kinds = ["melody", "melody", "long", "sparse", "run", "single"]
    if style in ("chords", "strings"):
        kinds += ["chord", "chord", "chord", "arpeggio"]
    if style == "strings":
        kinds += ["strum", "strum", "arpeggio", "arpeggio"]
    if style == "bass":
        kinds = ["line", "line", "line", "melody", "long", "run"]
    kind = kinds[rng.integers(len(kinds))]
    beat = song.beat if song else rng.uniform(0.33, 0.85)
    steps = {
        "melody": (0.5, 0.5, 1, 0.25), "long": (2, 4, 3), "sparse": (1, 2, 1.5), "run": (0.25, 0.125, 1 / 3),
        "single": (2, 1), "chord": (0.5, 1, 2, 4), "arpeggio": (0.25, 0.5, 1 / 3), "strum": (0.5, 1, 0.25),
        "line": (0.5, 1, 0.5, 0.25),
    }[kind]  # fmt: skip
    step = beat * steps[rng.integers(len(steps))]
    scale = song.scale if song else SCALES[rng.integers(len(SCALES))]
    key = song.key if song else int(rng.integers(12))
    playable = [note for note in range(lowest, highest + 1) if (note - key) % 12 in scale]
    # A phrase stays within a part of the instrument's range, as a player does.
    width = int(rng.integers(5, 15))
    at = int(rng.integers(max(1, len(playable) - width)))
    near = playable[at : at + width] or playable
    place = int(rng.integers(len(near)))
    loudness, articulation = rng.integers(35, 120), (0.3, 0.6, 0.9, 1.0, 1.1)[rng.integers(5)]

    notes: list[Note] = []
    time = 0.0
    while time < seconds:
        velocity = int(np.clip(loudness + rng.integers(-15, 16), 15, 127))
        length = step * ((0.5, 1, 1, 1, 2)[rng.integers(5)] if kind in ("melody", "line") else 1)
        root = song.root_at(time) if song else key
        if kind in ("chord", "strum"):
            low = _nearest(near[place], root) if song else near[rng.integers(len(near))]
            chord = CHORDS[rng.integers(len(CHORDS))]
            spread = rng.uniform(0.008, 0.03) if kind == "strum" else 0.0
            up = rng.random() < 0.4
            for number, interval in enumerate(reversed(chord) if up else chord):
                if lowest <= low + interval <= highest:
                    pitch = low + interval
                    softer = int(rng.integers(11))
                    notes.append(
                        Note(
                            time + number * spread,
                            length * rng.uniform(0.5, 1),
                            pitch,
                            max(15, velocity - softer),
                        )
                    )
        elif kind == "arpeggio":
            low = _nearest(near[place], root) if song else near[place]
            chord = CHORDS[rng.integers(5)] if rng.random() < 0.2 else (0, 4, 7, 12)
            pitch = low + chord[int(time / step) % len(chord)]
            if lowest <= pitch <= highest:
                notes.append(Note(time, (length, 1.0)[rng.integers(2)], pitch, velocity))
        elif kind == "line" and song:
            interval = (0, 0, 0, 7, 12, 5)[rng.integers(6)]
            pitch = _nearest((lowest + highest) // 2, root) + interval
            notes.append(Note(time, length * min(articulation, 1), min(pitch, highest), velocity))
        else:
            if kind == "single":
                pitch = playable[rng.integers(len(playable))]
            else:
                place = int(
                    np.clip(place + (-3, -2, -1, -1, 0, 1, 1, 2, 3)[rng.integers(9)], 0, len(near) - 1)
                )
                pitch = near[place]
            if kind == "run" or rng.random() > 0.1:
                notes.append(Note(time, max(0.06, length * articulation), pitch, velocity))
        time += length
    return notes


def _nearest(pitch: int, pitch_class: int) -> int:
    """The note of a pitch class that is nearest to ``pitch`` from below."""
    return pitch - (pitch - pitch_class) % 12


def _drums(rng: Rng, seconds: float, song: Song | None) -> list[Note]:
    step = (song.beat if song else 60 / rng.uniform(70, 180)) / 4
    loudness = int(rng.integers(55, 116))
    kick = [step in (0, 8) or rng.random() < 0.15 for step in range(16)]
    snare = [step in (4, 12) or rng.random() < 0.08 for step in range(16)]
    hat_every, hat = (1, 2, 2, 4)[rng.integers(4)], HATS[rng.integers(len(HATS))]
    kick_note, snare_note = KICKS[rng.integers(2)], SNARES[(1, 1, 3, 0, 2)[rng.integers(5)]]
    missing = (None, None, None, "hat", "kick", "snare")[rng.integers(6)]  # a part of the kit rests

    def hit(time: float, note: int, softer: int = 0, length: float = 0.2) -> Note:
        return Note(time, length, note, int(np.clip(loudness - softer + rng.integers(-10, 11), 15, 127)))

    notes: list[Note] = []
    for number in range(int(seconds / step)):
        place, time = number % 16, number * step
        if kick[place] and missing != "kick":
            notes.append(hit(time, kick_note))
        if snare[place] and missing != "snare":
            notes.append(hit(time, snare_note))
        if place % hat_every == 0 and missing != "hat":
            notes.append(hit(time, hat, int(rng.integers(0, 40))))
        if number % 64 == 0 and rng.random() < 0.5:
            notes.append(hit(time, CRASHES[rng.integers(len(CRASHES))], length=1.5))
        if rng.random() < 0.04:
            notes.append(hit(time, TOMS[rng.integers(len(TOMS))]))
    return notes


def _percussion(rng: Rng, seconds: float, song: Song | None) -> list[Note]:
    step = (song.beat if song else 60 / rng.uniform(70, 180)) / 4
    loudness = int(rng.integers(60, 116))
    chosen = rng.choice(HAND_PERCUSSION, rng.integers(1, 5), replace=False)
    dense = {int(note): rng.random(16) < (0.1, 0.2, 0.4, 0.6)[rng.integers(4)] for note in chosen}
    return [
        Note(number * step, 0.25, note, int(np.clip(loudness + rng.integers(-20, 13), 15, 127)))
        for number in range(int(seconds / step))
        for note, pattern in dense.items()
        if pattern[number % 16]
    ]
