"""The envelope of a source: correct at every length, independent of the blocks, and always small."""

import math

import numpy as np
import pytest

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.levels import rms_dbfs
from bandscope_dagster.pictures.envelope import COLUMNS, FINEST, Envelope, EnvelopeMeter


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    """Stereo noise of growing level."""
    frames = round(seconds * SAMPLE_RATE)
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (2, frames)) * np.linspace(0.1, 1, frames)
    return samples.astype(np.float32)


def envelope_of(samples: np.ndarray, block: int | None = None) -> Envelope:
    measure = EnvelopeMeter()
    block = block or samples.shape[1]
    for start in range(0, samples.shape[1], block):
        measure.push(samples[:, start : start + block])
    return measure.finish()


def rms_of_parts(samples: np.ndarray, parts: int) -> list[float]:
    return [
        math.sqrt(np.mean(np.square(part, dtype=np.float64))) for part in np.split(samples, parts, axis=1)
    ]


def test_a_short_source_has_the_rms_of_every_10_ms() -> None:
    samples = noise(1.0)
    assert envelope_of(samples).rms(100) == pytest.approx(rms_of_parts(samples, 100), rel=1e-5)


@pytest.mark.parametrize("block", [1, 100, FINEST, 1000, 4410, 10_000_000])
def test_it_does_not_matter_how_a_source_is_cut_into_blocks(block: int) -> None:
    samples = noise(0.5) if block == 1 else noise(30.0)
    found, whole = envelope_of(samples, block), envelope_of(samples)
    assert (found.frames, found.width) == (whole.frames, whole.width)
    assert found.energy == pytest.approx(whole.energy, rel=1e-5)


@pytest.mark.parametrize("columns", [COLUMNS - 1, COLUMNS, COLUMNS + 1, 3 * COLUMNS, 4 * COLUMNS])
def test_a_source_that_grows_is_halved_in_resolution_and_loses_no_energy(columns: int) -> None:
    samples = noise(columns * FINEST / SAMPLE_RATE)
    found = envelope_of(samples, 44_100)
    assert len(found.energy) <= COLUMNS
    assert found.frames == samples.shape[1]
    assert found.energy.sum() == pytest.approx(np.square(samples, dtype=np.float64).sum() / 2, rel=1e-6)


def test_a_long_source_has_the_rms_of_its_parts() -> None:
    samples = noise(60.0)
    assert envelope_of(samples, 441_000).rms(50) == pytest.approx(rms_of_parts(samples, 50), rel=0.01)


def test_two_hours_take_no_more_memory_than_a_minute() -> None:
    measure, block = EnvelopeMeter(), noise(10.0)
    for _ in range(720):
        measure.push(block)
    found = measure.finish()
    assert found.seconds == 7200
    assert COLUMNS / 2 <= len(found.energy) <= COLUMNS
    assert found.rms_dbfs == pytest.approx(rms_dbfs(block), abs=0.001)


def test_a_click_is_where_it_was_at_every_resolution() -> None:
    for seconds in (1, 50, 300):
        samples = np.zeros((2, seconds * SAMPLE_RATE), np.float32)
        samples[:, round(samples.shape[1] * 0.755)] = 1.0
        assert np.flatnonzero(envelope_of(samples, 100_000).rms(100)).tolist() == [75]


def test_the_level_is_that_of_the_tables() -> None:
    samples = noise(3.3)
    assert envelope_of(samples).rms_dbfs == pytest.approx(rms_dbfs(samples), abs=1e-4)


def test_the_last_column_may_be_short() -> None:
    samples = np.full((2, FINEST + 1), 0.5, np.float32)
    assert envelope_of(samples).rms(7) == pytest.approx([0.5] * 7)


def test_silence_has_no_level_and_is_flat() -> None:
    found = envelope_of(np.zeros((2, 100_000), np.float32))
    assert found.rms_dbfs is None
    assert not found.rms(640).any()


def test_a_source_of_which_nothing_came_is_empty() -> None:
    measure = EnvelopeMeter()
    measure.push(np.zeros((2, 0), np.float32))
    found = measure.finish()
    assert found.seconds == 0.0
    assert found.rms(3).tolist() == [0.0, 0.0, 0.0]


def test_an_envelope_stays_when_more_audio_comes() -> None:
    measure = EnvelopeMeter()
    measure.push(noise(1.0))
    before = measure.finish()
    level = before.rms_dbfs
    measure.push(noise(1.0, seed=2))
    assert before.rms_dbfs == level
