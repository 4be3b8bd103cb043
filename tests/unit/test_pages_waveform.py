"""The waveform of a source, its peaks and its RMS, is the same for all block lengths."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.pages.waveform import Waveform, WaveformMeter


def measured(audio: np.ndarray, blocks: list[int], columns: int) -> Waveform:
    meter = WaveformMeter(audio.shape[1], columns)
    for part in np.split(audio, np.cumsum(blocks), axis=1):
        meter.push(part)
    return meter.finish()


@given(
    frames=st.integers(1, 400), blocks=st.lists(st.integers(0, 90), max_size=8), columns=st.integers(1, 60)
)
def test_the_waveform_is_the_same_for_any_blocks(frames: int, blocks: list[int], columns: int) -> None:
    audio = np.random.default_rng(frames).standard_normal((2, frames)).astype(np.float32)
    waveform = measured(audio, blocks, columns)
    edges = np.linspace(0, frames, min(columns, frames) + 1).astype(int)
    parts = [audio[:, a:b] for a, b in pairwise(edges)]
    assert waveform.peak == pytest.approx([np.abs(part).max() for part in parts])
    assert waveform.rms == pytest.approx([np.sqrt((part**2).mean()) for part in parts], rel=1e-5)


def test_a_single_loud_sample_is_a_peak_with_a_low_rms() -> None:
    audio = np.zeros((2, 1000), np.float32)
    audio[1, 555] = -0.8
    waveform = measured(audio, [], 10)
    assert waveform.peak.argmax() == 5 and waveform.peak[5] == pytest.approx(0.8)
    assert waveform.rms[5] == pytest.approx(0.8 / np.sqrt(200))


def test_samples_beyond_the_given_length_are_ignored() -> None:
    meter = WaveformMeter(4, columns=2)
    meter.push(np.full((2, 3), 0.5, np.float32))
    meter.push(np.array([[0.5, 0.9, 0.9], [0.5, 0.9, 0.9]], np.float32))
    meter.push(np.ones((2, 5), np.float32))
    assert meter.finish().peak.tolist() == [0.5, 0.5]
