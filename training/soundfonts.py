"""Render notes with the presets of a soundfont."""

from pathlib import Path
from typing import Final

import numpy as np
import soxr
import tinysoundfont
from numpy.typing import NDArray

from training.classes import Program
from training.phrases import Note, Rng

RENDER_RATE: Final = 32_000  # Hz; above the tagger's, so that resampling removes what aliases
TAIL_S: Final = 0.6  # seconds rendered after the last note ends
CONTROL_S: Final = 0.02  # seconds between two changes of the pitch


class Soundfont:
    """A soundfont file, with its presets."""

    def __init__(self, path: Path) -> None:
        """Load ``path``, a ``.sf2`` or ``.sf3``."""
        self.name = path.stem
        self._synth = tinysoundfont.Synth(samplerate=RENDER_RATE, gain=-6)
        self._font = self._synth.sfload(str(path))

    def has(self, program: Program) -> bool:
        """True if the font has this preset."""
        return self._synth.sfpreset_name(self._font, program.bank, program.number) is not None

    def render(
        self, program: Program, notes: list[Note], seconds: float, sample_rate: int, rng: Rng, vibrato: bool
    ) -> NDArray[np.float32]:
        """``(frames,)`` mono float32 at ``sample_rate``: the notes, slightly out of tune, with vibrato if wanted."""
        synth = self._synth
        channel = 9 if program.bank == 128 else 0
        synth.sounds_off(channel)
        synth.program_select(channel, self._font, program.bank, program.number, program.bank == 128)
        synth.pitchbend_range(channel, 2.0)
        events = sorted(
            [(note.start, 1, note) for note in notes]
            + [(note.start + note.length, 0, note) for note in notes],
            key=lambda event: event[:2],
        )
        detuned = rng.normal(0, 0.15) if channel == 0 else 0.0  # semitones
        depth = rng.choice([0, 0, 0.1, 0.2, 0.35]) if vibrato and channel == 0 else 0.0  # semitones
        rate = rng.uniform(4.5, 6.8)  # Hz
        slide = (
            rng.choice([0, 0, 0, -0.5, -1.0]) if vibrato and channel == 0 else 0.0
        )  # semitones at a note's start
        total, at, began = int((seconds + TAIL_S) * RENDER_RATE), 0, 0.0
        step = int(CONTROL_S * RENDER_RATE)
        parts: list[NDArray[np.float32]] = []

        def advance(until: int) -> None:
            nonlocal at
            moving = depth or slide
            while at < until:
                frames = min(step if moving else until - at, until - at)
                now = at / RENDER_RATE
                bend = detuned + depth * np.sin(2 * np.pi * rate * now) * min(1, (now - began) / 0.3)
                bend += slide * np.exp(-(now - began) / 0.06)
                synth.pitchbend(channel, int(np.clip(8192 + bend / 2 * 8192, 0, 16383)))
                parts.append(np.frombuffer(bytes(synth.generate(frames)), np.float32).reshape(-1, 2).mean(1))
                at += frames

        for time, on, note in events:
            advance(min(int(time * RENDER_RATE), total))
            if at >= total:
                break
            if on:
                began = time
                synth.noteon(channel, note.pitch, note.velocity)
            else:
                synth.noteoff(channel, note.pitch)
        advance(total)
        synth.sounds_off(channel)
        audio = np.concatenate(parts)
        return soxr.resample(audio, RENDER_RATE, sample_rate).astype(np.float32)
