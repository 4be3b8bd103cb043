"""The tagger's training without sound: phrases, names of notes and drums, patches, the list of sources."""

import struct
from pathlib import Path

import numpy as np
import pytest

from bandscope_dagster.tagging.vocabulary import load_vocabulary
from training.classes import PROGRAMS, RECORDED, STYLES
from training.kits import Kit, notes_of
from training.patches import Patch, read_patch
from training.phrases import HAND_PERCUSSION, Song, phrase
from training.recordings import pitch_of, trimmed
from training.sources import read_manifest


@pytest.mark.parametrize("style", ["melody", "chords", "strings", "bass", "drums", "percussion"])
@pytest.mark.parametrize("in_song", [False, True])
def test_a_phrase_stays_in_the_instruments_range_and_in_its_time(style, in_song):
    rng = np.random.default_rng(4)
    empty = 0
    for _ in range(40):
        song = Song.random(rng) if in_song else None
        notes = phrase(rng, style, 40, 76, 5.0, song)
        empty += not notes
        assert all(0 <= note.start < 5.5 and note.length > 0 and 1 <= note.velocity <= 127 for note in notes)
        if style == "percussion":
            assert {note.pitch for note in notes} <= set(HAND_PERCUSSION)
        elif style != "drums":
            assert all(40 <= note.pitch <= 76 for note in notes)
    assert empty <= 4


def test_the_same_seed_gives_the_same_phrase():
    first, second = (phrase(np.random.default_rng(7), "chords", 30, 90, 6.0) for _ in range(2))
    assert first == second


def test_the_tracks_of_a_song_share_its_chords():
    rng = np.random.default_rng(0)
    song = Song(beat=0.5, key=2, scale=(0, 2, 4, 5, 7, 9, 11), roots=(0, 5, 7, 0))
    roots = [song.root_at(bar * 2.0) for bar in range(5)]
    assert roots == [2, 7, 9, 2, 2]
    lines = [phrase(rng, "bass", 28, 58, 8.0, song) for _ in range(60)]
    on_root = [note.pitch % 12 == song.root_at(note.start) for line in lines for note in line]
    assert np.mean(on_root) > 0.3  # a line on random notes of the scale would have one in seven


@pytest.mark.parametrize(
    ("name", "pitch"),
    [
        ("A4.mp3", 69),
        ("Fs3.mp3", 54),
        ("C#-1 v2.wav", 1),
        ("Bb2.ogg", 46),
        ("F2 v2.mp3", 41),
        ("index.js", None),
    ],
)
def test_a_file_name_says_the_pitch(name, pitch):
    assert pitch_of(name) == pitch


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("Bass Drum 2", (35, 36)),
        ("bd_808", (35, 36)),
        ("Snare-hard", (38, 40)),
        ("Stick_Rim", (37,)),
        ("HiHat Open", (46,)),
        ("hihat-closed-1", (42,)),
        ("Floor Tom", (41, 43, 45)),
        ("crash16i", (49, 52, 55, 57)),
        ("trimo-c3", ()),
    ],
)
def test_a_drums_name_says_its_notes(name, notes):
    assert notes_of(name) == notes


def test_a_kit_leaves_out_what_it_lacks():
    kit = Kit({36: [np.ones(100, np.float32)]}, 16_000)
    audio = kit.render(phrase(np.random.default_rng(1), "drums", 0, 127, 2.0), 2.0, np.random.default_rng(1))
    assert audio.shape == (32_000,)
    with pytest.raises(ValueError, match="without sounds"):
        Kit({}, 16_000)


def test_silence_around_a_recording_is_cut():
    audio = np.concatenate([np.zeros(500), np.ones(100), np.full(300, 1e-4)]).astype(np.float32)
    assert len(trimmed(audio)) == 100
    assert len(trimmed(np.zeros(100, np.float32))) == 0


def _patch(path: Path, wave: np.ndarray, rate: int, loop: tuple[int, int], root_hz: float) -> Path:
    """A patch of one 16-bit sample, as the format describes it."""
    data = wave.astype("<i2").tobytes()
    header = b"GF1PATCH110\0" + bytes(117)
    instrument = bytearray(63)
    layer = bytearray(47)
    layer[6] = 1  # samples
    sample = struct.pack(
        "<7sBIIIHIIIhB6s6s3s3sBhH36s",
        b"one", 0, len(data), 2 * loop[0], 2 * loop[1], rate, 20_000, 20_000_000, int(root_hz * 1000), 0, 7,
        bytes(6), bytes(6), bytes(3), bytes(3), 1 | 4, 60, 1024, bytes(36),
    )  # fmt: skip
    path.write_bytes(header + bytes(instrument) + bytes(layer) + sample + data)
    return path


def test_a_patch_plays_its_loop_at_the_pitch_that_is_asked_for(tmp_path):
    rate, hz = 22_050, 441.0
    wave = 20_000 * np.sin(2 * np.pi * hz * np.arange(rate // 2) / rate)
    path = _patch(tmp_path / "000_Sine.pat", wave, rate, (1000, 11_000), hz)
    sample = read_patch(path)[0]
    assert sample.loop == (1000, 11_000)
    assert sample.root_hz == pytest.approx(hz)

    patch = Patch(path, 16_000)
    sound = patch.sound(81, 3.0)  # an octave above A4, and longer than the recording
    assert len(sound) == pytest.approx(3.12 * 16_000, rel=0.01)
    middle = sound[8000:24_000] * np.hanning(16_000)
    assert np.abs(np.fft.rfft(middle)).argmax() == pytest.approx(880, abs=2)
    assert np.abs(sound[40_000:44_000]).max() > 0.5  # still sounding after 2.5 s


def test_a_patch_that_is_cut_off_is_refused(tmp_path):
    path = _patch(tmp_path / "a.pat", np.zeros(1000), 8000, (0, 0), 440)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"a\.pat is cut off"):
        read_patch(path)
    path.write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="no Gravis"):
        read_patch(path)


def test_every_source_has_a_digest_and_a_licence():
    packages = read_manifest()
    assert len({package.name for package in packages}) == len(packages)
    for package in packages:
        assert package.registry in ("debian", "npm")
        assert len(package.sha256) == 64
        assert package.licence
        assert package.what
    assert set(RECORDED) <= {package.name for package in packages}


def test_every_class_is_an_instrument_of_the_vocabulary():
    vocabulary = load_vocabulary()
    for name in PROGRAMS:
        assert vocabulary.match(name).family is not None, name
        assert STYLES[name] == PROGRAMS[name][0].style
