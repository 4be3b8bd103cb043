"""Gravis Ultrasound patches (``.pat``): recorded notes with loops, as the FreePats project publishes them.

The layout is that of Gravis' Forte PATCH format, version 1.10: a header of 129 bytes, one of 63 for the instrument, one
of 47 for its layer, then for each sample 96 bytes and its data.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import soxr
from numpy.typing import NDArray

from training.phrases import Note, Rng

_HEADERS: Final = 129 + 63 + 47
_SAMPLE: Final = struct.Struct("<7sBIIIHIIIhB6s6s3s3sBhH36s")
_16_BIT, _UNSIGNED, _LOOP, _PING_PONG = 1, 2, 4, 8
RELEASE_S: Final = 0.12  # seconds that a note rings after its end


@dataclass(frozen=True, slots=True)
class PatchSample:
    """One recording of a patch."""

    audio: NDArray[np.float32]  # (frames,) mono in [-1, 1]
    rate: int  # Hz
    loop: tuple[int, int] | None  # frames that repeat while the note is held
    range_hz: tuple[float, float]
    root_hz: float  # the pitch of the recording


def read_patch(path: Path) -> list[PatchSample]:
    """The samples of a ``.pat`` file.

    Raises:
        ValueError: it is no patch, or it is cut off.
    """
    data = path.read_bytes()
    if data[:12] != b"GF1PATCH110\0":
        raise ValueError(f"{path.name} is no Gravis Ultrasound patch")
    samples: list[PatchSample] = []
    at = _HEADERS
    for _ in range(data[129 + 63 + 6]):
        fields = _SAMPLE.unpack_from(data, at)
        size, start, end, rate, low, high, root, modes = (
            fields[index] for index in (2, 3, 4, 5, 6, 7, 8, 15)
        )
        at += _SAMPLE.size
        raw = data[at : at + size]
        if len(raw) < size:
            raise ValueError(f"{path.name} is cut off")
        at += size
        kind = (
            np.dtype("<u2" if modes & _UNSIGNED else "<i2")
            if modes & _16_BIT
            else np.dtype("u1" if modes & _UNSIGNED else "i1")
        )
        wave = np.frombuffer(raw[: size // kind.itemsize * kind.itemsize], kind).astype(np.float32)
        full = 2.0 ** (8 * kind.itemsize - 1)
        wave = wave / full - (1 if modes & _UNSIGNED else 0)
        first, last = start // kind.itemsize, min(end // kind.itemsize, len(wave))
        loop = (first, last) if modes & _LOOP and not modes & _PING_PONG and last - first > 8 else None
        samples.append(PatchSample(wave, rate, loop, (low / 1000, high / 1000), root / 1000))
    return samples


class Patch:
    """An instrument of FreePats."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        """Read ``path``; ``render`` gives audio at ``sample_rate``."""
        self._samples = [
            sample for sample in read_patch(path) if len(sample.audio) > 64 and sample.root_hz > 0
        ]
        self._sample_rate = sample_rate
        if not self._samples:
            raise ValueError(f"{path.name} has no sample")

    def _sample_for(self, hz: float) -> PatchSample:
        inside = [sample for sample in self._samples if sample.range_hz[0] <= hz <= sample.range_hz[1]]
        return min(inside or self._samples, key=lambda sample: abs(np.log(sample.root_hz / hz)))

    def sound(self, pitch: float, seconds: float) -> NDArray[np.float32]:
        """``(frames,)``: one note at a MIDI pitch, held for ``seconds``."""
        hz = 440 * 2 ** ((pitch - 69) / 12)
        sample = self._sample_for(hz)
        ratio = hz / sample.root_hz
        wanted = int((seconds + RELEASE_S) * sample.rate * ratio) + 1
        wave = sample.audio
        if sample.loop and wanted > sample.loop[1]:
            start, end = sample.loop
            again = -(-(wanted - end) // (end - start))
            wave = np.concatenate([wave[:end], np.tile(wave[start:end], again)])
        note = soxr.resample(wave[:wanted], sample.rate * ratio, self._sample_rate).astype(np.float32)
        fade = min(len(note), int(RELEASE_S * self._sample_rate))
        note[len(note) - fade :] *= np.linspace(1, 0, fade)
        return note

    def render(self, notes: list[Note], seconds: float, rng: Rng) -> NDArray[np.float32]:
        """``(frames,)`` mono float32 of the notes."""
        mix = np.zeros(int(seconds * self._sample_rate), np.float32)
        detuned = rng.normal(0, 0.15)
        for note in notes:
            sound = self.sound(note.pitch + detuned, note.length)
            start = int(note.start * self._sample_rate)
            end = min(len(mix), start + len(sound))
            if end > start:
                mix[start:end] += sound[: end - start] * (note.velocity / 127) ** 1.5
        return mix
