"""The notes of the demo's songs: who plays when, and what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from training.phrases import Note, Rng

MAJOR: Final = (0, 2, 4, 5, 7, 9, 11)
MINOR: Final = (0, 2, 3, 5, 7, 8, 10)
STEPS: Final = 16  # of a bar
STRENGTH: Final = {"x": 100, "o": 70}  # velocity of a stroke; "." is a rest
PHRASES: Final = ("x...x.x.x.......", "x.x.x...x..x....", "..x.x.x...x.x...", "x.....x.x...x...")
KICK, SNARE, HAT = 36, 38, 42  # of General MIDI's drum kit


@dataclass(frozen=True, slots=True)
class Composition:
    """What the parts of a song share."""

    title: str
    tempo: float  # quarter notes per minute
    tonic: int  # pitch class, 0 … 11
    scale: tuple[int, ...]
    chords: tuple[int, ...]  # degree of the scale for each bar, counted from 0
    bars: int
    parts: tuple["Part", ...]
    words: str = ""  # sung, one a note

    @property
    def step_s(self) -> float:
        """Seconds from one step of a bar to the next."""
        return 60 / self.tempo / 4

    @property
    def seconds(self) -> float:
        """The length of all bars."""
        return self.bars * STEPS * self.step_s

    def chord(self, bar: int) -> int:
        """The degree of the chord in a bar; the last bar has the tonic."""
        return 0 if bar == self.bars - 1 else self.chords[bar % len(self.chords)]

    def pitch(self, degree: int, lowest: int) -> int:
        """The MIDI note of a degree; degree 0 is the first tonic at or above ``lowest``."""
        octave, step = divmod(degree, 7)
        return lowest + (self.tonic - lowest) % 12 + 12 * octave + self.scale[step]


@dataclass(frozen=True, slots=True)
class Part:
    """One instrument of a song."""

    instrument: str  # class of the tagger
    play: Callable[[Composition, "Part", Rng], list[Note]]
    lowest: int = 48  # MIDI note from which the tonic is sought
    bars: tuple[tuple[int, int], ...] = ()  # first bar and the one after the last; empty: all
    pattern: str = ""
    level_db: float = 0.0
    pan: float = 0.0  # −1 (left) … 1 (right)
    number: int = 0  # of the preset in General MIDI
    bank: int = 0

    def active(self, song: Composition) -> list[int]:
        """The bars in which the instrument plays."""
        return [bar for first, end in self.bars or ((0, song.bars),) for bar in range(first, end)]


def melody(song: Composition, part: Part, rng: Rng) -> list[Note]:
    """A line in steps along the scale, with a note of the chord at the start of each bar."""
    notes: list[Note] = []
    degree = 4
    for bar in part.active(song):
        places = [step for step, mark in enumerate(str(rng.choice(PHRASES))) if mark == "x"]
        for index, (place, until) in enumerate(zip(places, [*places[1:], STEPS], strict=True)):
            degree += int(rng.integers(-2, 3))
            if index == 0:
                chord = song.chord(bar)
                degree = chord + min((-3, 0, 2, 4, 7), key=lambda tone: abs(chord + tone - degree))
            degree = min(max(degree, 0), 9)
            length = min(until - place, 8) * song.step_s * 0.95
            start = (bar * STEPS + place) * song.step_s
            notes.append(Note(start, length, song.pitch(degree, part.lowest), int(rng.integers(85, 110))))
    return notes


def chords(song: Composition, part: Part, rng: Rng) -> list[Note]:
    """Triads in the rhythm of the pattern, each until the next."""
    return [
        Note(start + voice * 0.012, length, song.pitch(degree, part.lowest), velocity)
        for bar, start, length, velocity in _strokes(song, part, rng)
        for voice, degree in enumerate(_inversion(song.chord(bar)))
    ]


def arpeggio(song: Composition, part: Part, rng: Rng) -> list[Note]:
    """Broken chords in the rhythm of the pattern; every note rings for half a bar."""
    notes: list[Note] = []
    for number, (bar, start, _, velocity) in enumerate(_strokes(song, part, rng)):
        low, mid, high = _inversion(song.chord(bar))
        degree = (low, mid, high, low + 7, high, mid)[number % 6]
        notes.append(Note(start, 8 * song.step_s, song.pitch(degree, part.lowest), velocity))
    return notes


def bass(song: Composition, part: Part, rng: Rng) -> list[Note]:
    """Roots in the rhythm of the pattern, with a fifth now and then."""
    notes: list[Note] = []
    for bar, start, length, velocity in _strokes(song, part, rng):
        degree = song.chord(bar) + (4 if rng.random() < 0.2 else 0)
        pitch = song.pitch(degree, part.lowest)
        notes.append(Note(start, 0.9 * length, pitch - 12 * (pitch >= part.lowest + 12), velocity))
    return notes


def drums(song: Composition, part: Part, rng: Rng) -> list[Note]:
    """Kick, snare and hi-hat; the pattern has one bar of each, with "/" between them."""
    notes: list[Note] = []
    for pitch, pattern in zip((KICK, SNARE, HAT), part.pattern.split("/"), strict=True):
        for bar in part.active(song):
            for step, mark in enumerate(pattern):
                if mark in STRENGTH:
                    velocity = STRENGTH[mark] + int(rng.integers(-8, 9)) - 15 * (pitch == HAT)
                    notes.append(Note((bar * STEPS + step) * song.step_s, 0.2, pitch, velocity))
    return notes


def _inversion(root: int) -> Sequence[int]:
    """The degrees of a triad, within an octave above the tonic, so that chords stay near each other."""
    return sorted((root + third) % 7 for third in (0, 2, 4))


def _strokes(song: Composition, part: Part, rng: Rng) -> list[tuple[int, float, float, int]]:
    """Bar, start (s), length until the next stroke (s) and velocity of every stroke."""
    places = [step for step, mark in enumerate(part.pattern) if mark in STRENGTH]
    return [
        (
            bar,
            (bar * STEPS + place) * song.step_s,
            (until - place) * song.step_s,
            STRENGTH[part.pattern[place]] + int(rng.integers(-8, 9)),
        )
        for bar in part.active(song)
        for place, until in zip(places, [*places[1:], STEPS], strict=True)
    ]
