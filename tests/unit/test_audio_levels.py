import math

import numpy as np
import pytest
from audio_files import excerpt
from hypothesis import given, settings
from hypothesis import strategies as st

from bandscope_dagster.audio.levels import SILENCE_DB, LevelMeter, SongMeter, peak, rms_dbfs


def measured(audio, cuts=()):
    measure = SongMeter()
    for block in np.split(audio, sorted(cuts), axis=1):
        measure.push(block)
    return measure.finish()


def reference_loudness(audio):
    """By pyloudnorm, of the complete gating blocks: it would round the number of blocks up."""
    audio = audio[:, : audio.shape[1] // 4410 * 4410]
    import pyloudnorm  # takes a second

    return pyloudnorm.Meter(44_100, filter_class="DeMan").integrated_loudness(audio.T.astype(np.float64))


@settings(max_examples=30)
@given(
    frames=st.integers(17_640, 200_000),
    start=st.integers(0, 60_000),
    cuts=st.lists(st.integers(0, 200_000), max_size=8),
    quiet=st.floats(0.001, 1.0),
)
def test_loudness_is_that_of_the_standard_for_any_cut_into_blocks(frames, start, cuts, quiet):
    audio = excerpt()[:, start : start + frames].copy()
    audio[:, frames // 2 :] *= quiet  # so that the relative gate excludes some blocks
    assert measured(audio, cuts).loudness_lufs == pytest.approx(reference_loudness(audio), abs=1e-6)


def test_a_full_scale_sine_measures_what_the_standard_says():
    sine = np.sin(2 * np.pi * 997 * np.arange(10 * 44_100) / 44_100).astype(np.float32)
    one_side = np.stack([sine, np.zeros_like(sine)])
    assert measured(one_side).loudness_lufs == pytest.approx(-3.01, abs=0.005)  # ITU-R BS.1770-4, annex 1


@pytest.mark.parametrize("frames", [0, 1, 17_639])
def test_less_than_a_gating_block_has_no_loudness(frames):
    assert measured(excerpt()[:, 20_000 : 20_000 + frames]).loudness_lufs is None


@pytest.mark.parametrize("phase", [0.25, 0.0])
def test_the_true_peak_is_between_the_samples(phase):
    """A sine of a quarter of the sample rate: all samples are at 0.71 of its amplitude, or some are at its peak."""
    angle = 2 * np.pi * (np.arange(44_100) + phase * 2) / 4
    sine = (0.5 * np.sin(angle) * np.hanning(44_100)).astype(np.float32)
    stats = measured(np.stack([sine, sine]))
    assert stats.peak == pytest.approx(0.5 * (np.sqrt(0.5) if phase else 1.0), rel=1e-3)
    assert stats.true_peak_dbtp == pytest.approx(20 * np.log10(0.5), abs=0.02)


@given(cuts=st.lists(st.integers(0, 268_288), max_size=6))
@settings(max_examples=10)
def test_the_true_peak_is_the_same_for_any_cut_and_at_least_the_peak(cuts):
    whole, cut = measured(excerpt()), measured(excerpt(), cuts)
    assert cut.true_peak_dbtp == pytest.approx(whole.true_peak_dbtp, abs=1e-5)
    assert whole.true_peak_dbtp >= 20 * np.log10(whole.peak)


def test_silence_has_no_loudness_and_no_level():
    stats = measured(np.zeros((2, 100_000), np.float32))
    assert (stats.loudness_lufs, stats.rms_dbfs, stats.peak, stats.mono_std) == (None, None, 0.0, 0.0)
    assert stats.true_peak_dbtp is None


def test_audio_below_the_absolute_gate_has_no_loudness():
    assert measured(excerpt() * np.float32(1e-5)).loudness_lufs is None


@given(cuts=st.lists(st.integers(0, 268_288), max_size=6))
@settings(max_examples=20)
def test_mean_and_deviation_are_torchs_for_any_cut(cuts):
    import torch

    audio = excerpt() + np.float32(0.25)  # an offset, with which naive sums of squares lose precision
    mono = torch.from_numpy(audio).double().mean(0)
    stats = measured(audio, cuts)
    assert stats.frames == 268_288
    assert stats.mono_mean == pytest.approx(mono.mean().item(), abs=1e-12)
    assert stats.mono_std == pytest.approx(mono.std().item(), rel=1e-12)
    assert stats.peak == np.abs(audio).max()
    assert stats.rms_dbfs == pytest.approx(20 * math.log10(np.sqrt(np.mean(audio.astype(np.float64) ** 2))))


def test_a_song_of_one_frame_has_no_deviation():
    assert measured(np.ones((2, 1), np.float32)).mono_std is None


def test_peak_and_rms_of_a_block():
    block = np.array([[0.5, -1.5], [0.0, 0.0]], np.float32)
    assert peak(block) == 1.5
    assert rms_dbfs(block) == pytest.approx(10 * math.log10((0.25 + 2.25) / 4))
    assert rms_dbfs(np.zeros((2, 10), np.float32)) is None
    assert peak(np.empty((2, 0), np.float32)) == 0.0


def levels(audio):
    measure = LevelMeter()
    measure.push(audio.astype(np.float32))
    return measure.finish()


def sine(dbfs_rms, seconds, hertz=997.0):
    amplitude = math.sqrt(2) * 10 ** (dbfs_rms / 20)
    return np.tile(
        amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * 44_100)) / 44_100), (2, 1)
    )


@pytest.mark.parametrize("seconds", [0.1, 0.399])
def test_the_rms_decides_on_silence_if_audio_is_too_short_for_a_loudness(seconds):
    assert levels(sine(SILENCE_DB - 1, seconds)).silent
    assert not levels(sine(SILENCE_DB + 1, seconds)).silent


@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_audio_above_the_gate_of_the_loudness_is_not_silent(seconds):
    quiet, heard = levels(sine(SILENCE_DB - 4, seconds)), levels(sine(SILENCE_DB - 2, seconds))
    # The loudness adds both channels, so it is 3 dB above the RMS of each.
    assert (quiet.loudness_lufs, quiet.silent) == (None, True)
    assert heard.loudness_lufs == pytest.approx(SILENCE_DB + 1, abs=0.1)
    assert not heard.silent


def test_a_short_sound_in_a_long_silence_is_not_silent():
    audio = np.zeros((2, 120 * 44_100), np.float32)
    audio[:, : 44_100 // 2] = sine(-50, 0.5)
    assert levels(audio).rms_dbfs < SILENCE_DB
    assert not levels(audio).silent


def test_a_deep_rumble_that_has_no_loudness_is_not_silent():
    rumble = levels(sine(-50, 5.0, hertz=5.0))
    assert rumble.loudness_lufs is None
    assert not rumble.silent  # it is tagged too


def test_nothing_at_all_is_silent():
    assert levels(np.empty((2, 0))).silent
    assert levels(np.zeros((2, 100_000))).silent
