import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from bandscope_dagster.audio.resample import StreamResampler


def resampled(audio, in_rate, out_rate, block):
    resampler = StreamResampler(in_rate, out_rate, channels=len(audio))
    parts = [resampler.push(audio[:, start : start + block]) for start in range(0, audio.shape[1], block)]
    return np.concatenate([*parts, resampler.finish()], axis=1)


@settings(max_examples=25)
@given(
    rate=st.sampled_from([8000, 11_025, 22_050, 32_000, 48_000, 96_000, 192_000]),
    frames=st.integers(1, 30_000),
    block=st.integers(100, 20_000),
)
def test_blocks_of_any_size_give_what_one_call_gives(rate, frames, block):
    audio = np.random.default_rng(frames).standard_normal((2, frames)).astype(np.float32)
    output = resampled(audio, rate, 44_100, block)
    assert np.array_equal(output, soxr.resample(audio.T, rate, 44_100, quality="HQ").T)
    assert abs(output.shape[1] - frames * 44_100 / rate) <= 0.5


@pytest.mark.parametrize("rate", [22_050, 48_000, 96_000])
def test_the_output_is_aligned_with_the_input(rate):
    def sines(rate):
        time = np.arange(2 * rate) / rate
        return np.stack([np.sin(2 * np.pi * 997 * time), np.sin(2 * np.pi * 5001 * time)]).astype(np.float32)

    inside = slice(2000, -2000)  # the sines begin and end abruptly, which a band-limited signal cannot
    output, wanted = resampled(sines(rate), rate, 44_100, 10_007)[:, inside], sines(44_100)[:, inside]
    noise_db = 20 * np.log10(np.std(output - wanted) / np.std(wanted))
    assert noise_db < -95


def test_equal_rates_pass_blocks_through():
    block = np.ones((2, 10), np.float32)
    resampler = StreamResampler(44_100, 44_100, channels=2)
    assert resampler.push(block) is block
    assert resampler.finish().shape == (2, 0)
