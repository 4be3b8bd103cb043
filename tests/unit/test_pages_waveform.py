"""The outline of a source: its peaks and its loudness, whatever the length of the blocks it comes in."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.pages.waveform import Waveform, WaveformMeasure


def measured(audio: np.ndarray, blocks: list[int], columns: int) -> Waveform:
    measure = WaveformMeasure(audio.shape[1], columns)
    for part in np.split(audio, np.cumsum(blocks), axis=1):
        measure.push(part)
    return measure.finish()


@given(
    frames=st.integers(1, 400), blocks=st.lists(st.integers(0, 90), max_size=8), columns=st.integers(1, 60)
)
def test_the_outline_is_that_of_the_whole_for_any_blocks(
    frames: int, blocks: list[int], columns: int
) -> None:
    audio = np.random.default_rng(frames).standard_normal((2, frames)).astype(np.float32)
    outline = measured(audio, blocks, columns)
    edges = np.linspace(0, frames, min(columns, frames) + 1).astype(int)
    parts = [audio[:, a:b] for a, b in pairwise(edges)]
    assert outline.peak == pytest.approx([np.abs(part).max() for part in parts])
    assert outline.rms == pytest.approx([np.sqrt((part**2).mean()) for part in parts], rel=1e-5)


def test_a_single_loud_sample_is_a_peak_and_hardly_louder() -> None:
    audio = np.zeros((2, 1000), np.float32)
    audio[1, 555] = -0.8
    outline = measured(audio, [], 10)
    assert outline.peak.argmax() == 5 and outline.peak[5] == pytest.approx(0.8)
    assert outline.rms[5] == pytest.approx(0.8 / np.sqrt(200))


def test_what_lies_behind_the_stated_length_is_left_out() -> None:
    measure = WaveformMeasure(4, columns=2)
    measure.push(np.full((2, 3), 0.5, np.float32))
    measure.push(np.array([[0.5, 0.9, 0.9], [0.5, 0.9, 0.9]], np.float32))
    measure.push(np.ones((2, 5), np.float32))
    assert measure.finish().peak.tolist() == [0.5, 0.5]
