"""Speech and singing: recorded speakers and a speech synthesizer, and both bent to melodies.

No collection of recorded singing has a licence and a registry that suit us. Speech whose pitch and durations are
replaced (PSOLA as Praat has it) keeps a real voice's timbre, and gets a melody, long vowels and vibrato.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import parselmouth
from numpy.typing import NDArray
from parselmouth.praat import call

from training.phrases import SCALES, Rng
from training.recordings import read_audio, trimmed

FLITE_VOICES: Final = ("awb", "slt", "rms", "kal16")
SHORTEST_S: Final = 0.25  # seconds; shorter recordings are clicks and tones
WORDS: Final = (
    "love", "oh", "baby", "night", "you", "me", "the", "way", "I", "know", "feel", "all", "right", "now",
    "time", "heart", "never", "gonna", "let", "go", "down", "sun", "moon", "river", "falling", "away",
    "home", "dream", "fire", "la", "la", "ooh", "yeah", "hold", "on", "tonight", "see", "light", "follow",
    "your", "eyes", "world", "alone", "again", "people", "dance", "slow", "summer", "rain", "blue", "sky",
    "morning", "singing", "song", "no", "more", "every", "day", "long", "road", "wind", "water", "stone",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Speaker:
    """Recordings of one speaker: ``(frames,)`` mono float32 each."""

    name: str
    clips: Sequence[NDArray[np.float32]]


def recorded_speaker(name: str, paths: Sequence[Path], sample_rate: int, most: int, rng: Rng) -> Speaker:
    """At most ``most`` of the recordings, chosen at random, without silence at their ends."""
    chosen = [paths[number] for number in rng.permutation(len(paths))[:most]]
    clips: list[NDArray[np.float32]] = []
    for path in chosen:
        try:
            clips.append(trimmed(read_audio(path, sample_rate)))
        except av.FFmpegError:  # some of KLettres' recordings are in Speex, which PyAV cannot read
            continue
    return Speaker(name, [clip for clip in clips if len(clip) > SHORTEST_S * sample_rate])


def synthetic_speaker(
    voice: str, flite: Path, library: Path, sample_rate: int, clips: int, work: Path, rng: Rng
) -> Speaker:
    """``clips`` sentences of random words in a voice of flite.

    Raises:
        subprocess.CalledProcessError: flite failed.
    """
    made: list[NDArray[np.float32]] = []
    file = work / f"flite-{voice}.wav"
    for _ in range(clips):
        text = " ".join(rng.choice(WORDS, rng.integers(4, 12)))
        environment = os.environ | {"LD_LIBRARY_PATH": str(library)}
        subprocess.run([flite, "-voice", voice, "-t", text, "-o", file], check=True, env=environment)
        made.append(trimmed(read_audio(file, sample_rate)))
    file.unlink()
    return Speaker(f"flite {voice}", made)


def speech(speaker: Speaker, seconds: float, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """``(frames,)`` of ``seconds``: recordings of a speaker, one after the other with pauses, at equal levels.

    Half of them, at random, went through the pitch processing of ``singing`` with their own melody. Its traces would
    else be what tells singing from speech.
    """

    def spoken() -> Iterator[NDArray[np.float32]]:
        for clip in _clips(speaker, rng):
            respoken = _respoken(clip, sample_rate, rng) if rng.random() < 0.5 else None
            yield clip if respoken is None else respoken

    return _fill(_levelled(spoken(), sample_rate, rng), seconds, sample_rate)


def singing(
    speaker: Speaker, seconds: float, sample_rate: int, rng: Rng, key: int | None = None
) -> NDArray[np.float32]:
    """``(frames,)`` of ``seconds``: recordings of a speaker, slowed down and bent to a melody."""
    base = int(rng.integers(43, 66)) if key is None else key
    scale = SCALES[rng.integers(len(SCALES) - 1)]

    def sung() -> Iterator[NDArray[np.float32]]:
        for clip in _clips(speaker, rng):
            bent = _bent(clip, sample_rate, base, scale, rng)
            if bent is not None:
                yield bent

    return _fill(_levelled(sung(), sample_rate, rng), seconds, sample_rate)


def choir(speakers: Sequence[Speaker], seconds: float, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """``(frames,)`` of ``seconds``: four to eight singers in one key, spread over two octaves."""
    base = int(rng.integers(45, 56))
    mix = np.zeros(int(seconds * sample_rate), np.float32)
    for _ in range(rng.integers(4, 9)):
        speaker = speakers[rng.integers(len(speakers))]
        mix += singing(speaker, seconds, sample_rate, rng, key=base + int(rng.choice([0, 0, 4, 7, 12])))
    return mix


def _clips(speaker: Speaker, rng: Rng) -> Iterator[NDArray[np.float32]]:
    while True:
        yield speaker.clips[rng.integers(len(speaker.clips))]


def _levelled(
    clips: Iterator[NDArray[np.float32]], sample_rate: int, rng: Rng
) -> Iterator[NDArray[np.float32]]:
    for clip in clips:
        yield clip / (np.sqrt(np.mean(np.square(clip))) + 1e-9) * 0.1
        yield np.zeros(int(rng.uniform(0, 0.4) * sample_rate), np.float32)


def _fill(parts: Iterator[NDArray[np.float32]], seconds: float, sample_rate: int) -> NDArray[np.float32]:
    frames = int(seconds * sample_rate)
    taken: list[NDArray[np.float32]] = []
    while sum(map(len, taken)) < frames:
        taken.append(next(parts))
    return np.concatenate(taken)[:frames].astype(np.float32)


def _resynthesised(
    sound: parselmouth.Sound, slower: float, melody: Callable[[Any], Any], tract: float | None = None
) -> NDArray[np.float32] | None:
    """A recording by Praat's PSOLA, ``slower`` times as long; None if Praat finds nothing voiced in it.

    ``melody`` makes the pitch tier from Praat's manipulation; ``tract`` is what the formants are multiplied with.
    """
    try:
        manipulation = call(sound, "To Manipulation", 0.01, 70, 500)
        durations = call("Create DurationTier", "tempo", 0, sound.duration)
        call(durations, "Add point", 0, slower)
        call([durations, manipulation], "Replace duration tier")
        call([melody(manipulation), manipulation], "Replace pitch tier")
        made = call(manipulation, "Get resynthesis (overlap-add)")
        if tract is not None:
            made = call(made, "Change gender", 75, 600, tract, 0, 1, 1)
    except parselmouth.PraatError:
        return None
    audio = made.values[0].astype(np.float32)
    return audio if np.abs(audio).max(initial=0) > 1e-4 else None


def _respoken(clip: NDArray[np.float32], sample_rate: int, rng: Rng) -> NDArray[np.float32] | None:
    """One recording, a little higher or lower and slower or faster; None if Praat finds nothing voiced in it."""
    sound = parselmouth.Sound(clip.astype(np.float64), sample_rate)

    def melody(manipulation: Any) -> Any:
        pitches = call(manipulation, "Extract pitch tier")
        call(pitches, "Multiply frequencies", 0, sound.duration, rng.uniform(0.85, 1.2))
        return pitches

    return _resynthesised(sound, rng.uniform(0.85, 1.2), melody)


def _bent(
    clip: NDArray[np.float32], sample_rate: int, base: int, scale: Sequence[int], rng: Rng
) -> NDArray[np.float32] | None:
    """One recording on random notes above the MIDI note ``base``; None if Praat finds nothing voiced in it."""
    clip = clip[: 4 * sample_rate]
    sound = parselmouth.Sound(clip.astype(np.float64), sample_rate)
    slower = rng.uniform(1.2, 3.0)
    length = sound.duration
    depth, rate = rng.choice([0, 0.15, 0.3, 0.5]), rng.uniform(4.8, 6.5)  # semitones, Hz

    def melody(_: Any) -> Any:
        pitches = call("Create PitchTier", "melody", 0, length)
        time = 0.0
        while time < length:
            until = time + rng.uniform(0.2, 1.2) / slower
            note = base + scale[rng.integers(len(scale))] + int(rng.choice([0, 0, 12]))
            for at in np.arange(time + 0.02, min(until, length), 0.012):
                bend = depth * np.sin(2 * np.pi * rate * at * slower)
                call(pitches, "Add point", float(at), float(440 * 2 ** ((note + bend - 69) / 12)))
            time = until
        return pitches

    tract = rng.uniform(0.86, 1.2) if rng.random() < 0.4 else None
    return _resynthesised(sound, slower, melody, tract)
