"""Files of every container and codec in the shapes that real files have: cut, damaged, joined, piped, with tags."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from audio_files import SAMPLE_RATE, excerpt
from numpy.typing import NDArray

SECONDS = 3.0

# format → (suffix, FFmpeg muxer, options of the encoder)
FORMATS = {
    "wav s16": ("wav", "wav", "-c:a pcm_s16le"),
    "wav u8": ("wav", "wav", "-c:a pcm_u8"),
    "wav s24": ("wav", "wav", "-c:a pcm_s24le"),
    "wav s32": ("wav", "wav", "-c:a pcm_s32le"),
    "wav f32": ("wav", "wav", "-c:a pcm_f32le"),
    "wav f64": ("wav", "wav", "-c:a pcm_f64le"),
    "wav A-law": ("wav", "wav", "-c:a pcm_alaw"),
    "wav µ-law": ("wav", "wav", "-c:a pcm_mulaw"),
    "wav ADPCM": ("wav", "wav", "-c:a adpcm_ms"),
    "wav IMA": ("wav", "wav", "-c:a adpcm_ima_wav"),
    "w64": ("w64", "w64", "-c:a pcm_s16le"),
    "aiff": ("aiff", "aiff", "-c:a pcm_s16be"),
    "caf": ("caf", "caf", "-c:a pcm_s16le"),
    "caf ALAC": ("caf", "caf", "-c:a alac"),
    "flac": ("flac", "flac", "-c:a flac"),
    "ogg Vorbis": ("ogg", "ogg", "-c:a libvorbis"),
    "ogg Opus": ("opus", "opus", "-c:a libopus"),
    "ogg FLAC": ("oga", "ogg", "-c:a flac"),
    "mp3": ("mp3", "mp3", "-c:a libmp3lame -b:a 192k"),
    "mp3 no Xing": ("mp3", "mp3", "-c:a libmp3lame -b:a 192k -write_xing 0 -id3v2_version 0"),
    "mp2": ("mp3", "mp2", "-c:a mp2 -b:a 192k"),
    "adts": ("aac", "adts", "-c:a aac -b:a 192k"),
    "m4a AAC": ("m4a", "ipod", "-c:a aac -b:a 192k"),
    "m4a ALAC": ("m4a", "ipod", "-c:a alac"),
    "wma 1": ("wma", "asf", "-c:a wmav1 -b:a 192k"),
    "wma 2": ("wma", "asf", "-c:a wmav2 -b:a 192k"),
    "mka FLAC": ("mka", "matroska", "-c:a flac"),
    "mka AAC": ("mka", "matroska", "-c:a aac -b:a 192k"),
    "mka MP3": ("mka", "matroska", "-c:a libmp3lame -b:a 192k"),
    "mka PCM": ("mka", "matroska", "-c:a pcm_s16le"),
    "webm Opus": ("webm", "webm", "-c:a libopus"),
    "webm Vorbis": ("webm", "webm", "-c:a libvorbis"),
    "wv": ("wv", "wv", "-c:a wavpack"),
}

# What a player shows without complaint of FFmpeg's two versions; see docs/formats.md.
VIDEO = {
    "matroska": "matroska -c:v mpeg4",
    "webm": "webm -c:v libvpx -deadline realtime -cpu-used 8",
    "ipod": "mp4 -c:v mpeg4",
    "asf": "asf -c:v msmpeg4",
    "ogg": "ogg -c:v libtheora",
}


def ffmpeg_program() -> str:
    """The path of Debian's ffmpeg."""
    found = shutil.which("ffmpeg")
    assert found, "these tests need ffmpeg: apt-get install -y --no-install-recommends ffmpeg"
    return found


def ffmpeg(*arguments: str) -> bytes:
    """Run ffmpeg; what it wrote to its standard output."""
    return subprocess.run(
        [ffmpeg_program(), "-v", "error", "-nostdin", "-y", *arguments], check=True, capture_output=True
    ).stdout


def music(channels: int, rate: int = SAMPLE_RATE, seconds: float = SECONDS) -> NDArray[np.float32]:
    """``(n, channels)`` of real music, another part of it in each channel."""
    frames = round(seconds * rate)
    return np.stack([np.roll(excerpt()[n % 2], 9000 * n)[:frames] for n in range(channels)], axis=1)


@cache
def source(channels: int = 2, rate: int = SAMPLE_RATE, seconds: float = SECONDS) -> Path:
    """The music as a WAV file of 16 bits."""
    folder = Path(tempfile.mkdtemp(prefix="bandscope-shapes-"))
    path = folder / "source.wav"
    soundfile.write(path, music(channels, rate, seconds), rate, subtype="PCM_16")
    return path


@cache
def base(name: str, channels: int = 2, rate: int = SAMPLE_RATE, layout: str = "") -> bytes:
    """The music as a file of a format."""
    suffix, muxer, encoder = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"song.{suffix}"
        order = ["-af", f"aformat=channel_layouts={layout}"] if layout else []
        exact = ["-bitexact", "-strict", "-2"]
        ffmpeg("-i", str(source(channels, rate)), *order, *encoder.split(), *exact, "-f", muxer, str(path))
        return path.read_bytes()


def cut_at_the_end(name: str) -> bytes:
    """Without its last hundredth."""
    data = base(name)
    return data[: len(data) * 99 // 100]


def cut_in_the_middle(name: str) -> bytes:
    """Only its first half."""
    data = base(name)
    return data[: len(data) // 2 + 3]


def with_a_hole(name: str) -> bytes:
    """With zeros in place of a twelfth."""
    data = bytearray(base(name))
    length = len(data) // 12
    data[len(data) // 2 : len(data) // 2 + length] = bytes(length)
    return bytes(data)


def with_a_flipped_byte(name: str) -> bytes:
    """With one other byte in the middle."""
    data = bytearray(base(name))
    data[len(data) // 2 + 11] ^= 0xFF
    return bytes(data)


def joined(name: str) -> bytes:
    """Two files, one after the other."""
    return base(name) + base(name)


def piped(name: str) -> bytes:
    """Written to a pipe, so that no header was completed."""
    _, muxer, encoder = FORMATS[name]
    fragmented = ["-movflags", "frag_keyframe+empty_moov"] if muxer == "ipod" else []
    return ffmpeg("-i", str(source()), *encoder.split(), "-strict", "-2", *fragmented, "-f", muxer, "pipe:1")


def remuxed(name: str) -> bytes:
    """The same packets in Matroska."""
    return converted(base(name), FORMATS[name][0], "-c copy -strict -2 -f matroska")


def with_video(name: str) -> bytes:
    """Beside a video that is a second longer."""
    _, muxer, encoder = FORMATS[name]
    picture = f"testsrc=size=64x64:rate=10:duration={SECONDS + 1}"
    video = VIDEO["ogg" if muxer == "opus" else muxer]
    return _muxed(["-f", "lavfi", "-i", picture, "-i", str(source())], f"{encoder} -f {video}")


def starting_late(name: str) -> bytes:
    """Beside a video that starts a second earlier."""
    _, muxer, encoder = FORMATS[name]
    picture = f"testsrc=size=64x64:rate=10:duration={SECONDS + 1}"
    video = VIDEO["ogg" if muxer == "opus" else muxer]
    late = ["-f", "lavfi", "-i", picture, "-itsoffset", "1", "-i", str(source())]
    return _muxed(late, f"{encoder} -f {video}")


def with_foreign_tags(name: str) -> bytes:
    """Between an ID3v2 tag and an APE and an ID3v1 tag."""
    text = b"\0A title" + bytes(500)
    frame = b"TIT2" + struct.pack(">IH", len(text), 0) + text
    size = len(frame)
    id3v2 = b"ID3\3\0\0" + bytes((0, 0, size >> 7 & 0x7F, size & 0x7F)) + frame
    item = struct.pack("<II", 5, 0) + b"Title\0Again"
    ape = item + b"APETAGEX" + struct.pack("<IIII8x", 2000, len(item) + 32, 1, 0)
    return id3v2 + base(name) + ape + b"TAG" + b"A title".ljust(125, b"\0")


def of_channels(name: str, channels: int) -> bytes:
    """With this number of channels."""
    return base(name, channels)


def of_rate(name: str, rate: int) -> bytes:
    """With this sample rate."""
    return base(name, 2, rate)


def converted(data: bytes, suffix: str, options: str) -> bytes:
    """A file through ffmpeg."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"in.{suffix}"
        path.write_bytes(data)
        return _muxed(["-i", str(path)], options)


def _muxed(inputs: list[str], options: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        ffmpeg(*inputs, *options.split(), "-strict", "-2", str(path))
        return path.read_bytes()


SHAPES: dict[str, Callable[[str], bytes]] = {
    "cut at the end": cut_at_the_end,
    "cut in the middle": cut_in_the_middle,
    "hole": with_a_hole,
    "flipped byte": with_a_flipped_byte,
    "joined": joined,
    "piped": piped,
    "in Matroska": remuxed,
    "with video": with_video,
    "late start": starting_late,
    "foreign tags": with_foreign_tags,
    "1 channel": lambda name: of_channels(name, 1),
    "6 channels": lambda name: of_channels(name, 6),
    "8 channels": lambda name: of_channels(name, 8),
    "22.05 kHz": lambda name: of_rate(name, 22_050),
    "37.8 kHz": lambda name: of_rate(name, 37_800),
}


def makeable(name: str, shape: str) -> bytes | None:
    """The file; None if FFmpeg cannot write it, or the container has no video."""
    try:
        return SHAPES[shape](name)
    except (KeyError, subprocess.CalledProcessError):
        return None


def frames_of_ffmpeg(data: bytes) -> tuple[NDArray[np.float32], str]:
    """The frames that Debian's ffmpeg decodes, ``(n, channels)``, and the errors that it prints."""
    with tempfile.NamedTemporaryFile(prefix="bandscope-") as file:
        file.write(data)
        file.flush()
        probe = subprocess.run(
            [
                *(ffmpeg_program(), "-v", "error", "-nostdin", "-i", file.name),
                *("-vn", "-c:a", "pcm_f32le", "-f", "wav", "-bitexact", "pipe:1"),
            ],
            capture_output=True,
        )
    if not probe.stdout:
        return np.zeros((0, 1), np.float32), probe.stderr.decode(errors="replace")
    whole = bytearray(probe.stdout)
    start = whole.index(b"data") + 8
    channels = struct.unpack_from("<H", whole, whole.index(b"fmt ") + 10)[0]
    samples = np.frombuffer(bytes(whole[start:]), np.float32)
    return samples[: len(samples) // channels * channels].reshape(-1, channels), probe.stderr.decode(
        errors="replace"
    )
