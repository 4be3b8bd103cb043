import numpy as np
import pytest
import torch

from bandscope_dagster.audio.levels import SongMeter
from bandscope_dagster.separation.normalisation import EPSILON, LEAST_MONO_SHARE, Normalisation


def measured(mixture: np.ndarray) -> Normalisation:
    measure = SongMeter()
    measure.push(mixture.astype(np.float32))
    stats = measure.finish()
    return Normalisation.of_song(stats.mono_mean, stats.mono_std, stats.rms_dbfs)


def noise(frames: int = 50_000) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, frames))


@pytest.mark.parametrize("offset", [0.0, 0.2])
@pytest.mark.parametrize("gain", [1.0, 1e-3, 1e-6])
def test_it_is_that_of_demucs_for_any_level(gain: float, offset: float) -> None:
    mixture = (gain * (noise() + offset)).astype(np.float32)
    mono = torch.from_numpy(mixture).mean(0).double()
    normalisation = measured(mixture)
    assert normalisation.mean == pytest.approx(float(mono.mean()), abs=gain * 1e-6)
    assert normalisation.scale == pytest.approx(float(mono.std()) + 1e-8, rel=1e-6)


def test_applying_it_gives_zero_mean_and_unit_deviation() -> None:
    mixture = (0.01 * noise() + 0.1).astype(np.float32)
    mono = measured(mixture).apply(mixture).mean(axis=0, dtype=np.float64)
    assert mono.mean() == pytest.approx(0, abs=1e-4) and mono.std() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("difference", [0.0, 1e-5, 1e-4], ids=["antiphase", "-100 dB", "-80 dB"])
def test_channels_that_cancel_each_other_are_scaled_by_their_own_level(difference: float) -> None:
    left = noise()[0]
    mixture = np.stack([left, -left * (1 - difference)])
    assert np.abs(measured(mixture).apply(mixture.astype(np.float32))).max() < 2


def test_the_two_rules_meet_without_a_gap_that_matters() -> None:
    """Just above the bound the mono mix decides, and no sample exceeds a thousand times the level."""
    left = noise()[0]
    mixture = np.stack([left, -left * (1 - 2.5e-3)]).astype(np.float32)
    assert np.abs(measured(mixture).apply(mixture)).max() < 2_000


@pytest.mark.parametrize("frames", [0, 1, 1000])
def test_silence_stays_as_it_is(frames: int) -> None:
    silence = np.zeros((2, frames), np.float32)
    assert measured(silence) == Normalisation()
    assert not measured(silence).apply(silence).any()


def test_a_song_of_one_frame_stays_as_it_is() -> None:
    assert measured(np.full((2, 1), 0.5)) == Normalisation()


def test_the_level_of_the_channels_counts_below_the_share_and_the_mono_mix_from_it_on() -> None:
    rms_dbfs = -20.0  # an RMS of 0.1
    least = LEAST_MONO_SHARE * 10 ** (rms_dbfs / 20)
    assert Normalisation.of_song(0.3, least, rms_dbfs) == Normalisation(0.3, least + EPSILON)
    assert Normalisation.of_song(0.3, least * 0.999, rms_dbfs) == Normalisation(0.0, 0.1 + EPSILON)
