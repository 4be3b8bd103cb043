"""The residual and the shares of known stems: what they are, in what pieces soever a song comes."""

import math

import numpy as np
import pytest

from bandscope_dagster.separation.quality import FLOOR_DB, SeparationQuality

STEMS = ("vocals", "accompaniment")


def noise(seed: int, frames: int = 10_000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2, frames)).astype(np.float32)


def quality_of(mixture: np.ndarray, stems: np.ndarray, piece: int | None = None) -> SeparationQuality:
    quality = SeparationQuality(STEMS)
    piece = piece or mixture.shape[1]
    for start in range(0, mixture.shape[1], piece):
        quality.push(mixture[:, start : start + piece], stems[..., start : start + piece])
    return quality


def test_stems_that_sum_to_the_mixture_exactly_are_at_the_floor() -> None:
    mixture = noise(1)
    quality = quality_of(mixture, np.stack([0.75 * mixture, 0.25 * mixture]))
    assert quality.residual_db == FLOOR_DB


@pytest.mark.parametrize("lost", [0.5, 0.1, 0.001])
def test_the_residual_is_the_energy_that_no_stem_has(lost: float) -> None:
    mixture = noise(1)
    quality = quality_of(mixture, np.stack([(1 - lost) * mixture, 0 * mixture]))
    assert quality.residual_db == pytest.approx(20 * math.log10(lost), abs=0.01)


def test_a_stem_that_adds_what_the_mixture_lacks_raises_the_residual_above_zero() -> None:
    mixture = noise(1)
    quality = quality_of(mixture, np.stack([mixture, -3 * mixture]))
    assert quality.residual_db == pytest.approx(20 * math.log10(3), abs=0.01)


def test_shares_are_energies_over_their_sum() -> None:
    mixture = noise(1)
    quality = quality_of(mixture, np.stack([0.8 * mixture, 0.4 * mixture]))
    assert quality.shares == pytest.approx({"vocals": 0.8, "accompaniment": 0.2})


@pytest.mark.parametrize("piece", [1, 999, 4096])
def test_pieces_of_any_length_give_the_figures_of_the_whole(piece: int) -> None:
    mixture, vocals = noise(1), noise(2)
    stems = np.stack([vocals, 0.9 * (mixture - vocals)])
    whole, pieces = quality_of(mixture, stems), quality_of(mixture, stems, piece)
    assert pieces.residual_db == pytest.approx(whole.residual_db, abs=1e-9)
    assert pieces.shares == pytest.approx(whole.shares, abs=1e-12)


def test_quiet_after_a_loud_start_is_not_lost_in_rounding() -> None:
    loud, quiet = np.ones((2, 1), np.float32), np.full((2, 500_000), 1e-4, np.float32)
    mixture = np.concatenate([loud, quiet], axis=1)
    stems = np.zeros((2, *mixture.shape), np.float32)
    stems[0, :, :1], stems[1, :, 1:] = loud, quiet
    # In float32, adding 1e-8 to 1 would change nothing.
    assert quality_of(mixture, stems).shares["accompaniment"] == pytest.approx(0.01 / 2.01, rel=1e-3)


def test_a_silent_song_has_nothing_left_over_and_no_shares() -> None:
    silence = np.zeros((2, 100), np.float32)
    quality = quality_of(silence, np.stack([silence, silence]))
    assert quality.residual_db == FLOOR_DB
    assert quality.shares == {"vocals": 0.0, "accompaniment": 0.0}


def test_sound_out_of_silence_is_infinitely_far_from_the_mixture() -> None:
    silence = np.zeros((2, 100), np.float32)
    assert quality_of(silence, np.stack([silence, silence + 0.1])).residual_db == math.inf
