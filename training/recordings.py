"""Phrases from recorded single notes, one file a note, whose name says the pitch: ``Fs3.mp3``, ``A#4 v2.wav``."""

import re
from pathlib import Path
from typing import Final

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from training.phrases import Note, Rng

_PITCH = re.compile(r"^([A-G])(s|#|b)?(-?\d)\b|^([A-G])(s|#|b)?(-?\d)", re.IGNORECASE)
_STEPS: Final = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
SUFFIXES: Final = frozenset({".mp3", ".wav", ".ogg", ".flac", ".aiff", ".aif"})
FARTHEST: Final = 3  # semitones that a recording is shifted at most, where there is another choice
FADE_S: Final = 0.04  # seconds, at the end of a note that is cut


def read_audio(path: Path, sample_rate: int) -> NDArray[np.float32]:
    """``(frames,)`` mono float32 at ``sample_rate``.

    Raises:
        av.FFmpegError: the file is damaged.
    """
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", container.streams.audio[0].rate)
        frames = [
            new.to_ndarray()[0] for frame in container.decode(audio=0) for new in resampler.resample(frame)
        ]
        rate = container.streams.audio[0].rate
    return soxr.resample(np.concatenate(frames), rate, sample_rate).astype(np.float32)


def trimmed(audio: NDArray[np.float32], below_db: float = -40) -> NDArray[np.float32]:
    """The part between the first and the last sample above ``below_db`` relative to the peak."""
    loud = np.flatnonzero(np.abs(audio) > np.abs(audio).max(initial=0) * 10 ** (below_db / 20))
    return audio[loud[0] : loud[-1] + 1] if len(loud) else audio[:0]


def pitch_of(name: str) -> int | None:
    """The MIDI note that a file's name begins with; None if it begins with none."""
    found = _PITCH.match(name)
    if found is None:
        return None
    step, accidental, octave = [group for group in found.groups()[:3]] if found[1] else found.groups()[3:]
    shift = {"s": 1, "#": 1, "b": -1}.get((accidental or "").lower(), 0)
    return 12 * (int(octave) + 1) + _STEPS[step.upper()] + shift


class RecordedNotes:
    """The notes of one recorded instrument."""

    def __init__(self, folder: Path, sample_rate: int) -> None:
        """Read every note below ``folder``; the files without a pitch in their names are left out."""
        self.sample_rate = sample_rate
        self._notes: dict[int, list[NDArray[np.float32]]] = {}
        for path in sorted(folder.rglob("*")):
            pitch = pitch_of(path.name) if path.suffix.lower() in SUFFIXES else None
            if pitch is not None:
                audio = trimmed(read_audio(path, sample_rate))
                if len(audio) > sample_rate // 20:
                    self._notes.setdefault(pitch, []).append(audio)
        if not self._notes:
            raise FileNotFoundError(f"{folder} has no recorded notes")
        self.lowest, self.highest = min(self._notes), max(self._notes)

    def render(self, notes: list[Note], seconds: float, rng: Rng) -> NDArray[np.float32]:
        """``(frames,)`` mono float32: each note is the nearest recording, resampled to its pitch."""
        mix = np.zeros(int(seconds * self.sample_rate), np.float32)
        for note in notes:
            distances = {pitch: abs(pitch - note.pitch) for pitch in self._notes}
            close = [pitch for pitch, far in distances.items() if far <= FARTHEST] or [
                min(distances, key=lambda p: distances[p])
            ]
            pitch = close[rng.integers(len(close))]
            takes = self._notes[pitch]
            ratio = 2 ** ((note.pitch - pitch + rng.normal(0, 0.15)) / 12)
            recording = takes[rng.integers(len(takes))][: int(4 * self.sample_rate)]
            sound = soxr.resample(recording, self.sample_rate * ratio, self.sample_rate)
            sound = sound[: max(int(note.length * self.sample_rate), self.sample_rate // 16)].copy()
            fade = min(len(sound), int(FADE_S * self.sample_rate))
            sound[-fade:] *= np.linspace(1, 0, fade)
            start = int(note.start * self.sample_rate)
            end = min(len(mix), start + len(sound))
            if end > start:
                mix[start:end] += sound[: end - start] * (note.velocity / 127)
        return mix
