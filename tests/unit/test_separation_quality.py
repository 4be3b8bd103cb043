"""Quality of a separation: residual, shares and levels of known stems, in pieces of any length, and its JSON."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyloudnorm
import pytest
from audio_files import excerpt

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.separation.quality import (
    CEILING_DB,
    FLOOR_DB,
    RESIDUAL_LIMIT_DB,
    QualityMeter,
    SeparationQuality,
    StemQuality,
)

STEMS = ("vocals", "accompaniment")


def noise(seed: int, frames: int = 10_000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2, frames)).astype(np.float32)


def sine(amplitude: float, hertz: float = 997.0, seconds: float = 3.0) -> np.ndarray:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.tile(amplitude * np.sin(2 * np.pi * hertz * time), (2, 1)).astype(np.float32)


def quality_of(mixture: np.ndarray, stems: np.ndarray, piece: int | None = None) -> SeparationQuality:
    """Measure a song in pieces; the stems' blocks are twice as long as the separated pieces."""
    measure = QualityMeter(STEMS)
    piece = piece or mixture.shape[1]
    for start in range(0, mixture.shape[1], piece):
        measure.add_separated(mixture[:, start : start + piece], stems[..., start : start + piece])
    for start in range(0, mixture.shape[1], 2 * piece):
        for stem, samples in zip(STEMS, stems, strict=True):
            measure.add_stem(stem, samples[:, start : start + 2 * piece])
    return measure.finish()


def stem_of(samples: np.ndarray, beside: np.ndarray | None = None) -> StemQuality:
    """The quality of the first of two stems; the second is digital silence by default."""
    stems = np.stack([samples, np.zeros_like(samples) if beside is None else beside])
    return quality_of(stems.sum(axis=0), stems).stems[0]


def loudness(samples: np.ndarray) -> float:
    samples = samples[:, : samples.shape[1] // 4410 * 4410]  # complete gating blocks
    return pyloudnorm.Meter(SAMPLE_RATE, filter_class="DeMan").integrated_loudness(
        samples.T.astype(np.float64)
    )


def test_stems_that_sum_to_the_mixture_exactly_are_at_the_floor() -> None:
    mixture = np.round(noise(1) * 2**10) / np.float32(2**10)  # so that the stems are exact
    assert quality_of(mixture, np.stack([0.75 * mixture, 0.25 * mixture])).residual_db == FLOOR_DB


@pytest.mark.parametrize("lost", [0.5, 0.1, 0.001])
def test_the_residual_is_the_energy_that_no_stem_has(lost: float) -> None:
    mixture = noise(1)
    quality = quality_of(mixture, np.stack([(1 - lost) * mixture, 0 * mixture]))
    assert quality.residual_db == pytest.approx(20 * math.log10(lost), abs=0.01)


def test_a_perturbation_of_a_known_level_is_the_residual() -> None:
    mixture = excerpt()
    hiss = 0.01 * noise(3, mixture.shape[1])
    quality = quality_of(mixture, np.stack([0.5 * mixture + hiss, 0.5 * mixture]))
    energies = [float(np.square(part.astype(np.float64)).sum()) for part in (hiss, mixture)]
    assert quality.residual_db == pytest.approx(10 * math.log10(energies[0] / energies[1]), abs=0.01)


def test_a_stem_that_adds_what_the_mixture_lacks_raises_the_residual_above_zero() -> None:
    mixture = noise(1)
    quality = quality_of(mixture, np.stack([mixture, -3 * mixture]))
    assert quality.residual_db == pytest.approx(20 * math.log10(3), abs=0.01)


@pytest.mark.parametrize("amplitude", [0.5, 0.02, 1.4])
def test_a_sine_measures_what_is_known_of_it(amplitude: float) -> None:
    stem = stem_of(sine(amplitude))
    assert stem.stem == "vocals"
    assert stem.peak == pytest.approx(amplitude, rel=1e-3)
    assert stem.rms_dbfs == pytest.approx(20 * math.log10(amplitude / math.sqrt(2)), abs=0.01)
    # ITU-R BS.1770-4, annex 1: a 997 Hz sine at 0 dBFS in one channel is at -3.01 LKFS; two channels add 3.01 dB.
    assert stem.loudness_lufs == pytest.approx(20 * math.log10(amplitude), abs=0.05)
    assert stem.loudness_lufs == pytest.approx(loudness(sine(amplitude)), abs=1e-6)
    assert not stem.silent


def test_the_loudness_of_a_real_stem_is_that_of_the_whole() -> None:
    samples = excerpt()
    assert stem_of(samples).loudness_lufs == pytest.approx(loudness(samples), abs=1e-6)


def test_shares_are_energies_over_their_sum() -> None:
    mixture = noise(1)
    quality = quality_of(mixture, np.stack([0.8 * mixture, 0.4 * mixture]))
    assert [stem.share for stem in quality.stems] == pytest.approx([0.8, 0.2])


def test_where_only_some_stems_are_stored_the_rest_of_the_mixture_counts_as_one_stem() -> None:
    drums, bass, vocals = sine(0.4, hertz=100), sine(0.2, hertz=200), sine(0.1, hertz=400)
    mixture = drums + bass + vocals
    measure = QualityMeter(["vocals", "bass"], all_stems=False)
    measure.add_separated(mixture, [vocals, bass])
    for stem, block in (("vocals", vocals), ("bass", bass)):
        measure.add_stem(stem, block)
    quality = measure.finish()
    assert quality.residual_db is None and quality.sums_to_mixture
    assert [stem.share for stem in quality.stems] == pytest.approx([1 / 21, 4 / 21], rel=1e-3)
    assert SeparationQuality.from_json(quality.to_json()) == quality


@pytest.mark.parametrize("piece", [997, 4096, 44_100])
def test_pieces_of_any_length_give_the_figures_of_the_whole(piece: int) -> None:
    mixture = excerpt()
    vocals = 0.3 * mixture[::-1]
    stems = np.stack([vocals, 0.9 * (mixture - vocals)])
    whole, pieces = quality_of(mixture, stems), quality_of(mixture, stems, piece)
    assert pieces.residual_db == pytest.approx(whole.residual_db, abs=1e-9)
    for found, expected in zip(pieces.stems, whole.stems, strict=True):
        assert found.peak == expected.peak
        assert found.share == pytest.approx(expected.share, abs=1e-12)
        assert found.rms_dbfs == pytest.approx(expected.rms_dbfs, abs=1e-9)
        assert found.loudness_lufs == pytest.approx(expected.loudness_lufs, abs=1e-9)


def test_stems_that_are_measured_at_the_same_time_do_not_mix() -> None:
    blocks = {stem: [sine(level, hertz=80.0 * level)] * 5 for stem, level in (("a", 0.1), ("b", 0.9))}
    one_by_one, at_once = QualityMeter(("a", "b")), QualityMeter(("a", "b"))
    for number in range(5):
        for stem in blocks:
            one_by_one.add_stem(stem, blocks[stem][number])
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(at_once.add_stem, blocks, [of[number] for of in blocks.values()]))
    assert at_once.finish() == one_by_one.finish()


def test_quiet_after_a_loud_start_is_not_lost_in_rounding() -> None:
    loud, quiet = np.ones((2, 1), np.float32), np.full((2, 500_000), 1e-4, np.float32)
    mixture = np.concatenate([loud, quiet], axis=1)
    stems = np.zeros((2, *mixture.shape), np.float32)
    stems[0, :, :1], stems[1, :, 1:] = loud, quiet
    # In float32, adding 1e-8 to 1 would change nothing.
    assert quality_of(mixture, stems).stems[1].share == pytest.approx(0.01 / 2.01, rel=1e-3)


def test_digital_silence_beside_a_stem_that_sounds_is_silent() -> None:
    mixture = noise(1, 50_000)
    quality = quality_of(mixture, np.stack([mixture, 0 * mixture]))
    assert quality.residual_db == FLOOR_DB
    assert quality.stems[1] == StemQuality("accompaniment", 0.0, 0.0, None, None, True)
    assert not quality.stems[0].silent and quality.stems[0].share == 1.0


def test_antiphase_is_heard_though_its_mono_mix_is_silence() -> None:
    samples = sine(0.25)
    samples[1] = -samples[0]
    stem = stem_of(samples)
    assert stem.loudness_lufs == pytest.approx(loudness(sine(0.25)), abs=1e-6)
    assert not stem.silent


def test_a_silent_song_has_nothing_left_over_and_no_shares() -> None:
    silence = np.zeros((2, 100), np.float32)
    quality = quality_of(silence, np.stack([silence, silence]))
    assert quality.residual_db == FLOOR_DB
    assert [stem.share for stem in quality.stems] == [0.0, 0.0]
    assert all(stem.silent for stem in quality.stems)


def test_sound_out_of_silence_is_as_far_from_the_mixture_as_can_be_said() -> None:
    silence = np.zeros((2, 100), np.float32)
    assert quality_of(silence, np.stack([silence, silence + 0.1])).residual_db == CEILING_DB


def test_a_song_without_audio_has_figures_too() -> None:
    assert QualityMeter(STEMS).finish() == SeparationQuality(
        FLOOR_DB, tuple(StemQuality(stem, 0.0, 0.0, None, None, True) for stem in STEMS)
    )


@pytest.mark.parametrize(
    ("residual_db", "sums"),
    [(FLOOR_DB, True), (RESIDUAL_LIMIT_DB, True), (RESIDUAL_LIMIT_DB + 0.01, False), (CEILING_DB, False)],
)
def test_stems_sum_to_the_mixture_up_to_and_at_the_limit(residual_db: float, sums: bool) -> None:
    assert SeparationQuality(residual_db, ()).sums_to_mixture is sums


QUALITY = SeparationQuality(
    FLOOR_DB,
    (
        StemQuality("vocals", 1.0, 0.75, -12.5, -11.25, False),
        StemQuality("drums", 0.0, 0.0, None, None, True),
    ),
)


def strict(token: str) -> float:
    raise ValueError(f"{token} is no JSON")


def test_json_has_plain_names_and_null_where_there_is_no_level() -> None:
    assert json.loads(QUALITY.to_json(), parse_constant=strict) == {
        "residual_db": -200.0,
        "stems": [
            {
                "stem": "vocals",
                "share": 1.0,
                "peak": 0.75,
                "rms_dbfs": -12.5,
                "loudness_lufs": -11.25,
                "silent": False,
            },
            {
                "stem": "drums",
                "share": 0.0,
                "peak": 0.0,
                "rms_dbfs": None,
                "loudness_lufs": None,
                "silent": True,
            },
        ],
    }


def test_what_is_written_is_read_back() -> None:
    assert SeparationQuality.from_json(QUALITY.to_json()) == QUALITY


def test_what_a_later_version_adds_is_passed_over() -> None:
    values = json.loads(QUALITY.to_json())
    values["sdr_db"] = 7.5
    values["stems"][0]["true_peak"] = 0.8
    assert SeparationQuality.from_json(json.dumps(values)) == QUALITY


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_a_number_that_json_does_not_have_is_an_error_and_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        SeparationQuality(number, ()).to_json()
