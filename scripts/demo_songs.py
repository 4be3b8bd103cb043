"""Render short demo songs with known stems, to try Bandscope without recorded music.

    python scripts/demo_songs.py --to songs/ --songs 3 --stems

All sound is synthesized from a seed: the same arguments give the same samples. The parts have the names of the
four-stem separators: vocals (a formant synthesizer that sings vowels), drums, bass, other.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

SAMPLE_RATE = 44_100  # Hz
SONG_S = 20.0  # seconds, rounded to whole pairs of bars
TAIL_S = 1.5  # seconds that the last notes ring on
PEAK = 10 ** (-1 / 20)  # of the mixture: −1 dBFS
STEMS = ("vocals", "drums", "bass", "other")
ARTIST = "The Bandscope Demo Band"

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)

# First three formants in Hz: means of Peterson & Barney (1952), male voices, for the vowels of
# father, head, heed, hawed and who'd.
VOWELS = np.array(
    [[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]]
)
FORMANT_GAINS = np.array([1.0, 0.5, 0.2])
FORMANT_WIDTHS = np.array([90.0, 110.0, 160.0])  # Hz

Mono = NDArray[np.float64]  # (frames,)
Stereo = NDArray[np.float64]  # (2, frames)


@dataclass(frozen=True, slots=True)
class Style:
    """The composition of a song. Patterns have 16 steps per bar: "x" is a stroke, "o" a soft stroke, "." a rest."""

    title: str
    tempo: float  # quarter notes per minute
    tonic: int  # MIDI note of the bass
    scale: tuple[int, ...]
    chords: tuple[int, ...]  # degree of the scale for each bar, counted from 0
    kick: str
    snare: str
    hat: str
    bass: str
    comp: str  # rhythm of the chords
    sustained: bool  # True: chords as a pad; False: as an electric piano


STYLES = (
    Style(
        "Night Bus", 96, 33, MINOR, (0, 5, 2, 6),
        kick="x.....x.x.......", snare="....x.......x..o", hat="x.o.x.o.x.o.x.oo",
        bass="x.....x.x...o.x.", comp="x......x....o...", sustained=False,
    ),
    Style(
        "Paper Boats", 72, 36, MAJOR, (0, 4, 5, 3),
        kick="x.........o.....", snare="........x.......", hat="o...o...o...o...",
        bass="x.......o.......", comp="x...o...x...o...", sustained=False,
    ),
    Style(
        "Harbour Lights", 124, 28, MINOR, (0, 6, 5, 6),
        kick="x...x...x...x...", snare="....x.......x...", hat="..x...x...x...xo",
        bass="..x...x...x..xx.", comp="x...............", sustained=True,
    ),
)  # fmt: skip
PHRASES = ("x...x.x.x.......", "x.x.x...x..x....", "..x.x.x...x.x...", "x.....x.x...x...")


def render(number: int, seed: int = 0) -> tuple[str, dict[str, NDArray[np.float32]]]:
    """The title and stems of song ``number`` (from 0); each stem is ``(2, frames)`` float32 in [-1, 1] at 44.1 kHz.

    The mixture is the sum of the stems. After the first three songs, the styles repeat in other keys and with other
    melodies.
    """
    style = STYLES[number % len(STYLES)]
    take = number // len(STYLES)
    title = style.title if take == 0 else f"{style.title} (take {take + 1})"
    random = np.random.default_rng([seed, number])
    transpose = 0 if take == 0 else int(random.integers(-3, 6))
    song = _Song(style, transpose, random)
    stems = {"vocals": song.vocals(), "drums": song.drums(), "bass": song.bass(), "other": song.other()}
    gain = PEAK / np.abs(sum(stems.values())).max()
    return title, {name: (gain * stem).astype(np.float32) for name, stem in stems.items()}


class _Song:
    """One song while it is rendered: the times of its steps, and a method for each part."""

    def __init__(self, style: Style, transpose: int, random: np.random.Generator) -> None:
        self.style = style
        self.tonic = style.tonic + transpose
        self.random = random
        self.step_s = 60 / style.tempo / 4
        self.bars = 2 * round(SONG_S / (16 * self.step_s) / 2)
        self.frames = round((self.bars * 16 * self.step_s + TAIL_S) * SAMPLE_RATE)

    def drums(self) -> Stereo:
        kit = [
            (self.style.kick, _kick(), 0.9, 0.0),
            (self.style.snare, _snare(self.random), 0.5, 0.1),
            (self.style.hat, _hat(self.random), 0.25, -0.35),
        ]
        dry = np.zeros((2, self.frames))
        for pattern, stroke, level, pan in kit:
            for step, strength in self._strokes(pattern, range(self.bars)):
                self._add(dry, step, stroke * strength * level, pan)
        return dry + 0.15 * _room(dry, 0.25, self.random)

    def bass(self) -> Stereo:
        part = np.zeros((2, self.frames))
        for step, strength in self._strokes(self.style.bass, range(self.bars)):
            note = self._degree(self._chord(step))
            self._add(part, step, 0.45 * strength * _bass(_hz(note), 2.5 * self.step_s), 0.0)
        return part

    def other(self) -> Stereo:
        dry = np.zeros((2, self.frames))
        bar_s = 16 * self.step_s
        for step, strength in self._strokes(self.style.comp, range(self.bars)):
            for third, pan in enumerate((-0.5, 0.0, 0.5, 0.3)):
                frequency = _hz(24 + self._degree(self._chord(step) + 2 * third) % 12 + self.tonic // 12 * 12)
                tone = _pad(frequency, bar_s) if self.style.sustained else _keys(frequency, 0.6 * bar_s)
                self._add(dry, step, 0.15 * strength * tone, pan)
        return dry + 0.3 * _room(dry, 0.8, self.random)

    def vocals(self) -> Stereo:
        """A melody from the third bar on: steps along the scale, with a tone of the chord at the start of each bar."""
        dry = np.zeros((2, self.frames))
        degree = 7
        for bar in range(2, self.bars):
            steps = [step for step, _ in self._strokes(str(self.random.choice(PHRASES)), range(bar, bar + 1))]
            for index, step in enumerate(steps):
                degree += int(self.random.integers(-2, 3))
                if index == 0:
                    chord = self._chord(step)
                    degree = chord + min((0, 2, 4, 7, 9), key=lambda tone: abs(chord + tone - degree))
                degree = int(np.clip(degree, 4, 12))
                until = steps[index + 1] if index + 1 < len(steps) else (bar + 1) * 16
                length = min(until - step, 6) * self.step_s * 0.95
                vowel = VOWELS[self.random.integers(len(VOWELS))]
                sung = _voice(_hz(12 + self._degree(degree)), length, vowel, self.random)
                self._add(dry, step, 0.7 * sung, 0.0)
        return dry + 0.25 * _room(dry, 0.9, self.random)

    def _strokes(self, pattern: str, bars: range) -> list[tuple[int, float]]:
        """Step of the song and strength of every stroke. The last bar has only its first step."""
        strength = {"x": 1.0, "o": 0.5}
        return [
            (16 * bar + step, strength[mark])
            for bar in bars
            for step, mark in enumerate(pattern)
            if mark in strength and (bar < self.bars - 1 or step == 0)
        ]

    def _chord(self, step: int) -> int:
        bar = step // 16
        return 0 if bar == self.bars - 1 else self.style.chords[bar % len(self.style.chords)]

    def _degree(self, degree: int) -> int:
        """MIDI note of a degree of the scale, counted up from the tonic of the bass."""
        octave, step = divmod(degree, 7)
        return self.tonic + 12 * octave + self.style.scale[step]

    def _add(self, part: Stereo, step: int, sound: Mono, pan: float) -> None:
        """Mix a sound in at a step, with constant power from left (−1) to right (1)."""
        start = round(step * self.step_s * SAMPLE_RATE)
        sound = sound[: self.frames - start]
        angle = (pan + 1) * np.pi / 4
        part[:, start : start + len(sound)] += np.array([[np.cos(angle)], [np.sin(angle)]]) * sound


def _kick() -> Mono:
    time = _time(0.35)
    sweep = 48 * time + 110 * 0.03 * (1 - np.exp(-time / 0.03))  # cycles: from 158 Hz down to 48 Hz
    return np.sin(2 * np.pi * sweep) * np.exp(-time / 0.09) + 0.2 * np.exp(-time / 0.002)


def _snare(random: np.random.Generator) -> Mono:
    time = _time(0.3)
    rattle = _filtered(random.standard_normal(len(time)), 1500, "highpass")
    return 0.6 * rattle * np.exp(-time / 0.07) + 0.6 * np.sin(2 * np.pi * 188 * time) * np.exp(-time / 0.05)


def _hat(random: np.random.Generator) -> Mono:
    time = _time(0.12)
    return _filtered(random.standard_normal(len(time)), 7000, "highpass") * np.exp(-time / 0.025)


def _bass(frequency: float, length_s: float) -> Mono:
    """A plucked string: high partials decay first."""
    time = _time(length_s)
    partials = np.arange(1, 9)[:, None]
    tone = np.sin(2 * np.pi * frequency * partials * time) / partials * np.exp(-time * partials / 0.35)
    return tone.sum(axis=0) * _fade(len(time), 0.004, 0.03)


def _keys(frequency: float, length_s: float) -> Mono:
    """An electric piano by frequency modulation (Chowning, 1973): a mellow tone and a bell-like attack."""
    time = _time(length_s)
    body = np.sin(
        2 * np.pi * frequency * time + 1.2 * np.exp(-time / 0.5) * np.sin(2 * np.pi * frequency * time)
    )
    bell = np.sin(2 * np.pi * frequency * time + 0.5 * np.sin(2 * np.pi * 14 * frequency * time))
    tone = body * np.exp(-time / 0.7) + 0.3 * bell * np.exp(-time / 0.08)
    return tone * _fade(len(time), 0.003, 0.08)


def _pad(frequency: float, length_s: float) -> Mono:
    """Three slightly detuned saw-like voices, read from a table of one period."""
    time = _time(length_s)
    turn = np.linspace(0, 1, 2049)
    partials = np.arange(1, 13)[:, None]
    period = (np.sin(2 * np.pi * partials * turn) / partials**1.4).sum(axis=0)
    voices = [np.interp(frequency * detune * time % 1, turn, period) for detune in (0.996, 1.0, 1.004)]
    return 0.5 * sum(voices) * _fade(len(time), 0.15, 0.3)


def _voice(frequency: float, length_s: float, vowel: NDArray[np.int_], random: np.random.Generator) -> Mono:
    """Harmonics of a pitch with glide and vibrato, weighted by the vowel's formants, with breath noise."""
    time = _time(length_s)
    glide = -0.6 * np.exp(-time / 0.04)  # semitones below the note at its start
    vibrato = 0.25 * np.sin(2 * np.pi * 5.5 * time) * np.clip((time - 0.15) / 0.2, 0, 1)
    pitch = frequency * 2 ** ((glide + vibrato) / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    tone = np.zeros(len(time))
    for harmonic in range(1, int(5000 / frequency) + 1):
        distance = (harmonic * frequency - vowel) / FORMANT_WIDTHS
        weight = (FORMANT_GAINS / (1 + distance**2)).sum() + 0.02
        tone += weight / harmonic**0.3 * np.sin(harmonic * phase)
    breath = 0.02 * _filtered(random.standard_normal(len(time)), 3000, "highpass")
    # About equal loudness for all vowels.
    return 0.3 * (tone / np.sqrt(np.mean(tone**2)) + breath) * _fade(len(time), 0.04, 0.07)


def _room(dry: Stereo, decay_s: float, random: np.random.Generator) -> Stereo:
    """Only the reverberation of a small room: noise per channel that decays by 60 dB in ``decay_s`` seconds."""
    time = _time(decay_s)
    echo = random.standard_normal((2, len(time))) * 10 ** (-3 * time / decay_s)
    echo /= np.sqrt((echo**2).sum(axis=1, keepdims=True))
    return fftconvolve(dry, echo, axes=1)[:, : dry.shape[1]]


def _filtered(sound: Mono, cutoff_hz: float, kind: str) -> Mono:
    return sosfilt(butter(2, cutoff_hz, kind, fs=SAMPLE_RATE, output="sos"), sound)


def _fade(frames: int, attack_s: float, release_s: float) -> Mono:
    up = np.arange(frames) / (attack_s * SAMPLE_RATE)
    down = np.arange(frames, 0, -1) / (release_s * SAMPLE_RATE)
    return np.minimum(1, np.minimum(up, down))


def _time(length_s: float) -> Mono:
    return np.arange(round(length_s * SAMPLE_RATE)) / SAMPLE_RATE


def _hz(note: int) -> float:
    return 440 * 2 ** ((note - 69) / 12)


def write(path: Path, audio: NDArray[np.float32], title: str) -> None:
    """Write ``(2, frames)`` as WAV, FLAC (both 24 bits) or MP3, by the extension, with title and artist."""
    subtype = "MPEG_LAYER_III" if path.suffix == ".mp3" else "PCM_24"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 2, subtype) as file:
        file.title, file.artist = title, ARTIST
        file.write(audio.T)


def main() -> None:
    """Write the songs to a folder, as WAV, FLAC and MP3 in turn."""
    parser = argparse.ArgumentParser(description="Render short demo songs with known stems.")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--songs", type=int, default=3, metavar="N", help="number of songs (default: 3)")
    parser.add_argument("--stems", action="store_true", help="also write the stems")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.songs):
        title, stems = render(number)
        path = arguments.to / f"{ARTIST} - {title}{('.wav', '.flac', '.mp3')[number % 3]}"
        write(path, sum(stems.values()), title)
        print(path)
        if arguments.stems:
            folder = arguments.to / "stems" / title
            folder.mkdir(parents=True, exist_ok=True)
            for name in STEMS:
                write(folder / f"{name}.wav", stems[name], f"{title}: {name}")


if __name__ == "__main__":
    main()
