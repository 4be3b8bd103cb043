"""Loudness and true peak against FFmpeg's ``ebur128``, over files of many kinds."""

import io
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_files import ENCODERS, LIMITS, encode, encode_soundfile, encoded, excerpt
from numpy.typing import NDArray

from bandscope_dagster.audio.decode import decode
from bandscope_dagster.audio.levels import SongMeter, SongStats

Audio = NDArray[np.float32]


def tone(seconds: float, dbfs: float, rate: int = 44_100) -> Audio:
    """A sine of 997 Hz, ``(2, frames)``, with this amplitude in dBFS."""
    sine = 10 ** (dbfs / 20) * np.sin(2 * np.pi * 997 * np.arange(round(seconds * rate)) / rate)
    return np.tile(sine, (2, 1)).astype(np.float32)


def gated() -> Audio:
    """Loud, 15 LU softer, digital silence, loud: the relative and the absolute gate leave out half of it."""
    loud = np.tile(excerpt(), 2)
    return np.concatenate([loud, loud * np.float32(10 ** (-15 / 20)), np.zeros_like(loud), loud], axis=1)


MADE = {
    "a sine": lambda: encode_soundfile(tone(5, -23), 44_100, format="WAV", subtype="FLOAT"),
    "quiet": lambda: encode_soundfile(excerpt() * np.float32(0.01), 44_100, format="WAV", subtype="FLOAT"),
    "above full scale": lambda: encode_soundfile(
        excerpt() * np.float32(4), 44_100, format="WAV", subtype="FLOAT"
    ),
    "gated": lambda: encode_soundfile(gated(), 44_100, format="FLAC", subtype="PCM_16"),
    "one side": lambda: encode_soundfile(
        excerpt() * np.float32([[1], [0]]), 44_100, format="FLAC", subtype="PCM_24"
    ),
    "mono": lambda: encode_soundfile(excerpt()[:1], 44_100, format="FLAC", subtype="PCM_16"),
    "96 kHz": lambda: encode(excerpt(), "flac", "flac", rate=96_000),
    "half a second": lambda: encode_soundfile(
        excerpt()[:, 50_000:72_500], 44_100, format="WAV", subtype="PCM_16"
    ),
}
FILES = ("wav16", "flac", "mp3", "vorbis", "opus", "m4a_aac", "wma", *MADE)


@cache
def data_of(name: str) -> bytes:
    return encoded(name) if name in ENCODERS else MADE[name]()


def ours(data: bytes) -> SongStats:
    """The statistics that ``songs`` stores."""
    meter = SongMeter()
    for block in decode(io.BytesIO(data), LIMITS):
        meter.push(block)
    return meter.finish()


def of_ffmpeg(data: bytes, folder: Path) -> tuple[float, float]:
    """Integrated loudness (LUFS) and true peak (dBTP). A mono file is played on both channels."""
    program = shutil.which("ffmpeg")
    assert program, "this test compares with FFmpeg; install it, for example with `apt-get install ffmpeg`"
    (folder / "song").write_bytes(data)
    # Both measure at 44.1 kHz. At 96 kHz the same song is 0.03 LU softer: a digital shelf ends at half the sample rate.
    audio = "aresample=44100,aformat=sample_fmts=flt:channel_layouts=stereo"
    filters = f"{audio},ebur128=peak=true:metadata=1,ametadata=mode=print:file=-"
    if soundfile_channels(data) == 1:
        filters = f"pan=stereo|c0=c0|c1=c0,{filters}"  # FFmpeg's own upmix would be 3 dB softer
    options = ["-hide_banner", "-nostdin", "-vn", "-af", filters, "-f", "null", "-"]
    command = [program, "-i", str(folder / "song"), *options]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    (peak,) = re.findall(
        r"Peak:\s+(\S+) dBFS", done.stderr
    )  # of the summary, which has the last tenth of a second
    return float(re.findall(r"lavfi.r128.I=(\S+)", done.stdout)[-1]), float(peak)


def soundfile_channels(data: bytes) -> int | None:
    """The number of channels; None for formats that libsndfile does not read."""
    try:
        return soundfile.info(io.BytesIO(data)).channels
    except soundfile.SoundFileError:
        return None


@pytest.mark.parametrize("name", FILES)
def test_loudness_and_true_peak_are_those_of_ffmpeg(name: str, tmp_path: Path) -> None:
    data = data_of(name)
    stats = ours(data)
    loudness, true_peak = of_ffmpeg(data, tmp_path)
    print(
        f"{name}: {stats.loudness_lufs:.3f} {loudness:.3f} LUFS, {stats.true_peak_dbtp:.2f} {true_peak:.2f} dBTP"
    )
    assert stats.loudness_lufs == pytest.approx(loudness, abs=0.01)
    assert stats.true_peak_dbtp == pytest.approx(true_peak, abs=0.15)  # FFmpeg prints one decimal


def test_the_deviation_does_not_depend_on_the_number_of_threads() -> None:
    program = (
        "import numpy as np\nfrom bandscope_dagster.audio.levels import SongMeter\nmeter = SongMeter()\n"
        "meter.push(np.random.default_rng(0).standard_normal((2, 441_000)).astype(np.float32))\n"
        "print(meter.finish().mono_std.hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    }
    assert len(found) == 1
