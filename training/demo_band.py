"""Play the demo's songs: each part alone, with a soundfont or a synthesized voice, in stereo at 44.1 kHz."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import parselmouth
import tinysoundfont
from numpy.typing import NDArray
from parselmouth.praat import call
from scipy.signal import fftconvolve

from training.demo_music import Composition, Part
from training.phrases import Note, Rng
from training.production import rms
from training.recordings import read_audio, trimmed

SAMPLE_RATE: Final = 44_100  # Hz
TAIL_S: Final = 1.5  # seconds that the last notes ring on
ROOM_S: Final = 0.9  # seconds in which reverberation decays by 60 dB
ROOM_DB: Final = -11.0  # of the reverberation, relative to the dry sound
PART_RMS: Final = 0.08  # of a part while it plays, at 0 dB
DRY: Final = ("bass guitar", "double bass", "synth bass", "drums", "singing voice")
VIBRATO_HZ, VIBRATO = 5.6, 0.25  # semitones

Audio = NDArray[np.float32]  # (2, frames)


class Singer:
    """A voice of flite that sings one word a note: Praat's PSOLA gives each word its pitch and length."""

    def __init__(self, flite: Path, library: Path, voice: str, work: Path) -> None:
        """``work`` is a folder for temporary files."""
        self._command = [str(flite), "-voice", voice]
        self._environment = os.environ | {"LD_LIBRARY_PATH": str(library)}
        self._file = work / "word.wav"
        self._words: dict[str, NDArray[np.float32]] = {}

    def sing(self, notes: list[Note], words: list[str], seconds: float) -> NDArray[np.float32]:
        """``(frames,)`` mono: the words in turn, one a note."""
        audio = np.zeros(int((seconds + TAIL_S) * SAMPLE_RATE), np.float32)
        for number, note in enumerate(notes):
            sung = self._sung(self._word(words[number % len(words)]), note)
            start = int(note.start * SAMPLE_RATE)
            audio[start : start + len(sung)] += sung[: len(audio) - start]
        return audio

    def _word(self, word: str) -> NDArray[np.float32]:
        if word not in self._words:
            done = [*self._command, "-t", word, "-o", str(self._file)]
            subprocess.run(done, check=True, env=self._environment)
            self._words[word] = trimmed(read_audio(self._file, SAMPLE_RATE))
        return self._words[word]

    @staticmethod
    def _sung(word: NDArray[np.float32], note: Note) -> NDArray[np.float32]:
        sound = parselmouth.Sound(word.astype(np.float64), SAMPLE_RATE)
        slower = float(np.clip(note.length / sound.duration, 0.6, 3.0))
        manipulation = call(sound, "To Manipulation", 0.01, 70, 500)
        durations = call("Create DurationTier", "slower", 0, sound.duration)
        call(durations, "Add point", 0, slower)
        call([durations, manipulation], "Replace duration tier")
        pitches = call("Create PitchTier", "melody", 0, sound.duration)
        for at in np.arange(0, sound.duration, 0.01):
            sung_for = at * slower
            bend = VIBRATO * min(1, sung_for / 0.4) * np.sin(2 * np.pi * VIBRATO_HZ * sung_for)
            bend -= 0.7 * np.exp(-sung_for / 0.05)  # a slide up to the note
            call(pitches, "Add point", float(at), float(440 * 2 ** ((note.pitch + bend - 69) / 12)))
        call([pitches, manipulation], "Replace pitch tier")
        sung = call(manipulation, "Get resynthesis (overlap-add)").values[0].astype(np.float32)
        fade = min(len(sung) // 2, int(0.03 * SAMPLE_RATE))
        sung[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        return sung / (rms(sung) + 1e-9) * np.float32(0.1)


def played(font: Path, part: Part, notes: list[Note], seconds: float) -> Audio:
    """``(2, frames)``: the notes with the part's preset of a soundfont, and its tail."""
    synth, loaded = _synthesizer(font)
    is_kit = part.bank == 128
    channel = 9 if is_kit else 0
    synth.program_select(channel, loaded, part.bank, part.number, is_kit)
    events = [(note.start, 1, note) for note in notes] + [
        (note.start + note.length, 0, note) for note in notes
    ]
    parts: list[NDArray[np.float32]] = []
    at, total = 0, int((seconds + TAIL_S) * SAMPLE_RATE)
    for time, on, note in [*sorted(events, key=lambda event: event[:2]), (seconds + TAIL_S, 0, None)]:
        frames = min(int(time * SAMPLE_RATE), total) - at
        if frames > 0:
            parts.append(np.frombuffer(bytes(synth.generate(frames)), np.float32).reshape(-1, 2).T)
            at += frames
        if note is None:
            break
        if on:
            synth.noteon(channel, note.pitch, note.velocity)
        else:
            synth.noteoff(channel, note.pitch)
    synth.sounds_off(channel)
    return np.concatenate(parts, axis=1)


@cache
def _synthesizer(font: Path) -> tuple[tinysoundfont.Synth, int]:
    synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE, gain=-6)
    return synth, synth.sfload(str(font))


def tracks(song: Composition, font: Path, singer: Singer, rng: Rng) -> dict[str, Audio]:
    """The song's parts at the levels of its mix: instrument → ``(2, frames)`` float32."""
    echo = rng.standard_normal((2, int(ROOM_S * SAMPLE_RATE)))
    echo *= 10 ** (-3 * np.arange(echo.shape[1]) / echo.shape[1])
    echo *= 10 ** (ROOM_DB / 20) / np.sqrt((echo**2).sum(axis=1, keepdims=True))
    made: dict[str, Audio] = {}
    for part in song.parts:
        notes = part.play(song, part, rng)
        if part.instrument == "singing voice":
            audio = np.tile(singer.sing(notes, song.words.split(), song.seconds), (2, 1))
        else:
            audio = played(font, part, notes, song.seconds)
        loud = np.abs(audio) > 0.02 * np.abs(audio).max()
        audio = audio * (PART_RMS * 10 ** (part.level_db / 20) / rms(audio[loud]))
        angle = (part.pan + 1) * np.pi / 4
        audio = audio * np.array([[np.cos(angle)], [np.sin(angle)]], np.float32) * np.sqrt(2)
        if part.instrument not in DRY:
            audio = audio + fftconvolve(audio, echo, axes=1)[:, : audio.shape[1]]
        made[part.instrument] = audio.astype(np.float32)
    return made


def mixed(made: dict[str, Audio]) -> Audio:
    """The sum of the parts, with its peak at −1 dBFS."""
    mix = np.sum(list(made.values()), axis=0)
    return (mix * (10 ** (-1 / 20) / np.abs(mix).max())).astype(np.float32)
