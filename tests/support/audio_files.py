"""Audio files of every format, made in memory: a real excerpt and encoders."""

import importlib.util
import io
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from bandscope_dagster.audio.limits import Limits

SAMPLE_RATE = 44_100
LIMITS = Limits(max_bytes=1_000_000_000)

# name → (FFmpeg muxer, FFmpeg encoder, sample rate)
ENCODERS = {
    "wav16": ("wav", "pcm_s16le", 44_100),
    "wav24": ("wav", "pcm_s24le", 44_100),
    "wav32f": ("wav", "pcm_f32le", 44_100),
    "aiff": ("aiff", "pcm_s16be", 44_100),
    "caf": ("caf", "pcm_s16le", 44_100),
    "w64": ("w64", "pcm_s16le", 44_100),
    "flac": ("flac", "flac", 44_100),
    "mp3": ("mp3", "libmp3lame", 44_100),
    "mp3_without_xing": ("mp3", "libmp3lame", 44_100),
    "vorbis": ("ogg", "vorbis by libsndfile", 44_100),
    "opus": ("ogg", "libopus", 48_000),
    "m4a_aac": ("ipod", "aac", 44_100),
    "m4a_alac": ("ipod", "alac", 44_100),
    "adts": ("adts", "aac", 44_100),
    "wma": ("asf", "wmav2", 44_100),
    "matroska": ("matroska", "flac", 44_100),
}


def stempeg_song() -> bytes:
    """The excerpt of The Easton Ellises' "Falcon 69" in the stempeg package: five AAC streams, a picture."""
    # Only the data of stempeg is used: its import needs an ffmpeg program.
    spec = importlib.util.find_spec("stempeg")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    return (folder / "data" / "The Easton Ellises - Falcon 69.stem.mp4").read_bytes()


@cache
def excerpt() -> NDArray[np.float32]:
    """The mixture of that song, ``(2, 268_288)`` at 44.1 kHz, at a level that no encoder clips."""
    with av.open(io.BytesIO(stempeg_song())) as container:
        stream = container.streams.audio[0]
        audio = np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
    return (audio * np.float32(0.5)).astype(np.float32)


@cache
def encoded(name: str) -> bytes:
    """The excerpt as a file of a format in ``ENCODERS``."""
    muxer, encoder, rate = ENCODERS[name]
    if name == "vorbis":  # PyAV has no libvorbis
        return encode_soundfile(excerpt(), SAMPLE_RATE, format="OGG", subtype="VORBIS")
    options = {"write_xing": "0"} if name == "mp3_without_xing" else {}
    return encode(excerpt(), muxer, encoder, rate=rate, options=options)


def encode(
    audio: NDArray[np.float32],
    muxer: str,
    encoder: str,
    *,
    rate: int = SAMPLE_RATE,
    layout: str = "stereo",
    tags: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> bytes:
    """``(channels, n)`` at 44.1 kHz as a file of 256 kbit/s; resampled first if ``rate`` differs."""
    if rate != SAMPLE_RATE:
        import soxr

        audio = soxr.resample(audio.T, SAMPLE_RATE, rate, quality="VHQ").T
    file = io.BytesIO()
    with av.open(file, "w", format=muxer, options=options or {}) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(encoder, rate=rate)
        stream.layout = layout
        stream.bit_rate = 256_000
        convert = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size
        )
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        for piece in [*convert.resample(frame), *convert.resample(None), None]:
            container.mux(stream.encode(piece))
    return file.getvalue()


def encode_soundfile(audio: NDArray[np.float32], rate: int, **how: str) -> bytes:
    """``(channels, n)`` at ``rate`` as a file, written by libsndfile."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, len(audio), **how) as writer:
        # In parts of a second: libsndfile's Vorbis encoder overflows the stack on minutes of audio in one call.
        for start in range(0, audio.shape[1], rate):
            writer.write(audio[:, start : start + rate].T)
    return file.getvalue()


def lag(audio: NDArray[np.float32], reference: NDArray[np.float32]) -> int:
    """The delay of ``audio`` against ``reference`` in frames (cross-correlation of the mono mixes)."""
    from scipy.signal import correlate

    return int(correlate(audio.mean(0), reference.mean(0), method="fft").argmax()) - reference.shape[1] + 1


def snr_db(audio: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """The signal-to-noise ratio in dB, over the frames that both have."""
    frames = min(audio.shape[1], reference.shape[1])
    signal = reference[:, :frames].astype(np.float64)
    noise = audio[:, :frames] - signal
    with np.errstate(divide="ignore"):
        return float(10 * np.log10((signal**2).sum() / (noise**2).sum()))
