"""What happens to a sound between the instrument and the file: equaliser, saturation, rooms, codecs, noise."""

import io
from typing import Final

import av
import numpy as np
import soxr
from numpy.typing import NDArray

from training.phrases import Rng

CODECS: Final = (("mp3", "mp3", (48, 64, 96, 128)), ("aac", "adts", (48, 64, 96)))  # name, format, kbit/s


def rms(audio: NDArray[np.float32]) -> float:
    """The root mean square of samples in any shape."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) if audio.size else 0.0


def equalised(audio: NDArray[np.float32], rng: Rng, depth_db: float = 6) -> NDArray[np.float32]:
    """``(frames,)`` through a random smooth curve of up to ±``depth_db`` over ten octaves."""
    spectrum = np.fft.rfft(audio)
    octaves = np.log2(np.maximum(np.linspace(0, 1, len(spectrum)), 1e-3))  # of the highest frequency
    points = np.linspace(-10, 0, 8)
    curve = np.interp(octaves, points, rng.uniform(-depth_db, depth_db, 8))
    return np.fft.irfft(spectrum * 10 ** (curve / 20), len(audio)).astype(np.float32)


def room(sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """A random impulse response: the sound itself, and noise that decays by 60 dB in 0.2 to 2.5 s and darkens."""
    seconds = rng.choice([0.2, 0.35, 0.6, 1.0, 1.7, 2.5])
    frames = int(seconds * sample_rate)
    tail = rng.standard_normal(frames) * np.exp(-6.9 * np.arange(frames) / frames)
    spectrum = np.fft.rfft(tail)
    tail = np.fft.irfft(
        spectrum / (1 + (np.linspace(0, 8, len(spectrum)) * rng.uniform(0, 0.9)) ** 2), frames
    )
    tail *= 10 ** (rng.uniform(-14, 0) / 20) / np.sqrt(np.square(tail).sum())
    response = np.zeros(frames + int(rng.uniform(0, 0.03) * sample_rate), np.float32)
    response[-frames:] = tail
    response[0] += 1
    return response


def reverberated(audio: NDArray[np.float32], sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """``(frames,)`` in a random room; what rings after the end is cut."""
    response = room(sample_rate, rng)
    size = 1 << (len(audio) + len(response) - 2).bit_length()
    return np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(response, size), size)[: len(audio)].astype(
        np.float32
    )


def saturated(audio: NDArray[np.float32], rng: Rng) -> NDArray[np.float32]:
    """``(frames,)`` through a soft clipper, driven by up to 14 dB above its level."""
    drive = 10 ** (rng.uniform(-4, 14) / 20) / (rms(audio) * 4 + 1e-9)
    return (np.tanh(audio * drive) / drive).astype(np.float32)


def compressed(audio: NDArray[np.float32], sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """``(frames,)`` with its level evened out by a ratio of 1.5 to 6 over 20 to 100 ms."""
    size = int(rng.uniform(0.02, 0.1) * sample_rate)
    power = np.convolve(np.square(audio), np.ones(size) / size, "same")
    ratio = 1 - 1 / rng.uniform(1.5, 6)
    level = np.sqrt(np.maximum(power, power.max(initial=1e-12) * 1e-4) + 1e-12)
    return (audio * level**-ratio * level.max() ** ratio).astype(np.float32)


def encoded(audio: NDArray[np.float32], sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """``(frames,)`` after a lossy codec at a low bit rate, shifted by the codec's delay."""
    codec, form, rates = CODECS[rng.integers(len(CODECS))]
    peak = float(np.abs(audio).max(initial=0)) or 1.0
    stream_rate = 32_000
    wave = soxr.resample(audio / peak * 0.9, sample_rate, stream_rate).astype(np.float32)
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=stream_rate, layout="mono")
        stream.bit_rate = 1000 * int(rates[rng.integers(len(rates))])
        frame = av.AudioFrame.from_ndarray(wave[None], "fltp", "mono")
        frame.sample_rate = stream_rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    decoded = soxr.resample(np.concatenate(parts), stream_rate, sample_rate)[: len(audio)]
    return (np.pad(decoded, (0, len(audio) - len(decoded))) * peak / 0.9).astype(np.float32)


def produced(audio: NDArray[np.float32], sample_rate: int, rng: Rng) -> NDArray[np.float32]:
    """``(frames,)`` with a random choice of all of these, at an RMS of 0.1; about one in four is left dry."""
    if rng.random() < 0.75:
        if rng.random() < 0.5:
            audio = equalised(audio, rng)
        if rng.random() < 0.15:
            audio = saturated(audio, rng)
        if rng.random() < 0.25:
            audio = compressed(audio, sample_rate, rng)
        if rng.random() < 0.6:
            audio = reverberated(audio, sample_rate, rng)
        if rng.random() < 0.06:
            audio = encoded(audio, sample_rate, rng)
    return (audio * (0.1 / (rms(audio) + 1e-9))).astype(np.float32)
