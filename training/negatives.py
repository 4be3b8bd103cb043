"""Sounds with no instrument: noise, tones, hum, wind, birds, applause, clicks, vinyl."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.classes import Program
from training.phrases import Rng

Maker = Callable[[int, int, Rng], NDArray[np.float32]]  # frames, sample rate, random → (frames,)

EFFECTS: Final = tuple(Program(number) for number in (121, 122, 123, 124, 125, 126, 127))
"""General MIDI's sound effects: breath, seashore, birds, telephone, helicopter, applause, gunshot."""


def _coloured(frames: int, rng: Rng, slope: float) -> NDArray[np.float32]:
    """Noise whose amplitude falls with the frequency to the power of ``slope``."""
    spectrum = np.fft.rfft(rng.standard_normal(frames))
    return np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 20) ** slope, frames).astype(
        np.float32
    )


def noise(frames: int, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """White, pink or brown noise, or one between them."""
    return _coloured(frames, rng, rng.choice([0, 0.25, 0.5, 1.0]))


def wind(frames: int, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """Brown noise in gusts."""
    gusts = np.interp(np.arange(frames), np.linspace(0, frames, 9), rng.uniform(0.1, 1, 9))
    return (_coloured(frames, rng, rng.uniform(0.5, 1.2)) * gusts).astype(np.float32)


def tone(frames: int, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """One to three steady or sliding sines: no instrument plays that plainly."""
    time = np.arange(frames) / sample_rate
    mix = np.zeros(frames)
    for _ in range(rng.integers(1, 4)):
        start = 2 ** rng.uniform(np.log2(50), np.log2(6000))
        end = start if rng.random() < 0.7 else start * 2 ** rng.uniform(-2, 2)
        frequency = np.geomspace(start, min(end, 7500), frames)
        mix += rng.uniform(0.3, 1) * np.sin(2 * np.pi * np.cumsum(frequency) / sample_rate)
    if rng.random() < 0.2:  # beeps
        mix *= (time * rng.uniform(0.7, 4)) % 1 < rng.uniform(0.2, 0.8)
    return mix.astype(np.float32)


def hum(frames: int, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """The mains at 50 or 60 Hz with its harmonics, and a little noise."""
    time = np.arange(frames) / sample_rate
    mains = rng.choice([50, 60])
    mix = sum(
        rng.uniform(0, 1) / n * np.sin(2 * np.pi * mains * n * time + rng.uniform(0, 6)) for n in range(1, 12)
    )
    return (mix + rng.uniform(0, 0.1) * rng.standard_normal(frames)).astype(np.float32)


def applause(frames: int, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """Claps of many hands: short bursts of band-limited noise at random times."""
    mix = np.zeros(frames, np.float32)
    hands = int(10 ** rng.uniform(1, 2.6) * frames / sample_rate)
    length = int(0.03 * sample_rate)
    decay = np.exp(-np.arange(length) / (0.006 * sample_rate))
    for start in rng.integers(0, max(1, frames - length), hands):
        mix[start : start + length] += rng.uniform(0.1, 1) * decay * rng.standard_normal(length)
    spectrum = np.fft.rfft(mix)
    frequency = np.linspace(0, sample_rate / 2, len(spectrum))
    band = np.exp(-(np.log2(np.maximum(frequency, 1) / rng.uniform(900, 2200)) ** 2))
    return np.fft.irfft(spectrum * band, frames).astype(np.float32)


def birds(frames: int, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """Chirps: short sliding tones between 1.5 and 7 kHz."""
    mix = np.zeros(frames, np.float32)
    at = 0
    while at < frames:
        count, base = rng.integers(1, 8), rng.uniform(1500, 5500)
        for _ in range(count):
            length = int(rng.uniform(0.03, 0.25) * sample_rate)
            frequency = base * np.geomspace(1, 2 ** rng.uniform(-0.6, 0.6), length)
            frequency *= 1 + rng.choice([0, 0, 0.05]) * np.sin(
                2 * np.pi * 30 * np.arange(length) / sample_rate
            )
            chirp = np.sin(2 * np.pi * np.cumsum(np.minimum(frequency, 7600)) / sample_rate) * np.hanning(
                length
            )
            end = min(frames, at + length)
            mix[at:end] += chirp[: max(0, end - at)] * rng.uniform(0.3, 1)
            at = at + length + int(rng.uniform(0, 0.1) * sample_rate)
        at += int(rng.uniform(0.1, 1.5) * sample_rate)
    return mix + 0.003 * _coloured(frames, rng, 0.5) / 0.01


def clicks(frames: int, sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """Clicks and crackle over hiss, as of a worn record between two songs."""
    mix = rng.uniform(0.01, 0.2) * rng.standard_normal(frames)
    at = rng.integers(0, frames, int(rng.uniform(1, 60) * frames / sample_rate))
    mix[at] += rng.choice([-1, 1], len(at)) * rng.exponential(1, len(at))
    return mix.astype(np.float32)


MAKERS: Final[tuple[Maker, ...]] = (noise, wind, tone, hum, applause, birds, clicks)
