"""Audio files written in blocks: their length, their precision, and their tags."""

import io

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from bandscope_dagster.exporting.encodings import NoSuchEncoding, find_encoding
from bandscope_dagster.exporting.sound_file import SoundFile

TAGS = {
    "title": "Nachtbus, ليل 🎸 (vocals)",
    "artist": "Mia",
    "album": "Früh",
    "stem": "vocals",
    "comment": "c",
}
KINDS = [("wav", "16"), ("wav", "24"), ("wav", "32f"), ("flac", "16"), ("flac", "24"), ("mp3", None)]
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT", None: "MPEG_LAYER_III"}


def tone(frames: int, level: float = 0.5) -> NDArray[np.float32]:
    """One sine in each channel, ``(2, frames)``."""
    time = np.arange(frames) / 44_100
    return (level * np.stack([np.sin(2765 * time), np.sin(4147 * time)])).astype(np.float32)


def written(kind: tuple, audio: NDArray[np.float32], block: int) -> bytes:
    file = io.BytesIO()
    with SoundFile(file, find_encoding(*kind), TAGS) as sound:
        for start in range(0, audio.shape[1], block):
            sound.push(audio[:, start : start + block])
        assert sound.finish() == {audio.shape[1]}
    return file.getvalue()


def decoded(data: bytes) -> NDArray[np.float64]:
    return soundfile.read(io.BytesIO(data), always_2d=True)[0].T


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("frames", [1, 1151, 4609, 100_003])
def test_a_file_is_exactly_as_long_as_what_was_pushed(kind, frames: int) -> None:
    data = written(kind, tone(frames), 4410)
    info = soundfile.info(io.BytesIO(data))
    assert (info.samplerate, info.channels, info.subtype) == (44_100, 2, SUBTYPES[kind[1]])
    with av.open(io.BytesIO(data)) as container:
        lengths = {info.frames, sum(frame.samples for frame in container.decode(audio=0))}
    # FFmpeg records at most one MP3 frame of padding; up to 46 more samples (1 ms) remain.
    assert lengths == {frames} or (kind[0] == "mp3" and all(0 <= n - frames <= 46 for n in lengths))


@pytest.mark.parametrize(
    "kind, error", list(zip(KINDS, (2**-16, 2**-24, 0, 2**-16, 2**-24, 0.03), strict=True)), ids=str
)
def test_samples_are_within_half_a_step_and_in_their_place(kind, error: float) -> None:
    audio = tone(50_000)
    assert np.abs(decoded(written(kind, audio, 7000)) - audio).max() <= error * 1.0001


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_blocks_do_not_show_in_the_file(kind) -> None:
    audio = tone(30_000)
    assert written(kind, audio, 30_000) == written(kind, audio, 1000)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_tags_are_read_back(kind) -> None:
    with av.open(io.BytesIO(written(kind, tone(5000), 5000))) as container:
        found = dict(container.metadata)
    known = TAGS if kind[0] != "wav" else {name: text for name, text in TAGS.items() if name != "stem"}
    assert {name: found.get(name) for name in known} == known


def test_a_float_wav_holds_what_passes_full_scale() -> None:
    audio = tone(5000, level=3.0)
    assert np.array_equal(decoded(written(("wav", "32f"), audio, 999)), audio)


def test_full_scale_in_integers_is_cut_by_one_step_at_most() -> None:
    audio = np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32)
    assert np.abs(decoded(written(("wav", "16"), audio, 2)) - audio).max() == 2**-15


@pytest.mark.parametrize(
    "kind, message",
    [
        (("mp3", "16"), "mp3 does not support --bits 16: omit the option"),
        (("flac", "32f"), "omit the option or use 24 or 16"),
    ],
)
def test_bits_that_a_format_does_not_have_are_an_error(kind, message: str) -> None:
    with pytest.raises(NoSuchEncoding, match=message):
        find_encoding(*kind)
