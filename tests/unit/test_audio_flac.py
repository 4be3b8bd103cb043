import io

import numpy as np
import pytest
import soundfile
from audio_files import excerpt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bandscope_dagster.audio.flac import (
    Bits,
    UndecodableBlock,
    decode_flac,
    dequantize,
    encode,
    is_intact,
    quantize,
)

samples = st.floats(-1e6, 1e6, width=32) | st.floats(-1.0, 1.0, width=32)
blocks = st.integers(1, 40).flatmap(lambda n: arrays(np.float32, (2, n), elements=samples))


@given(block=blocks, bits=st.sampled_from([16, 24]))
def test_what_is_stored_is_what_is_decoded_within_half_a_step(block, bits):
    quantized = quantize(block, bits)
    decoded = decode_flac(encode(quantized), quantized.gain)
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, dequantize(quantized))
    half_a_step = 0.5 * quantized.gain / 2 ** (bits - 1)
    rounding = np.abs(block) * 2.0**-23  # rounding of float32
    assert (np.abs(decoded.astype(np.float64) - block) <= half_a_step + rounding).all()


@given(block=blocks, bits=st.sampled_from([16, 24]))
def test_nothing_is_clipped_and_the_gain_is_one_where_it_can_be(block, bits):
    quantized = quantize(block, bits)
    full = 2 ** (bits - 1)
    assert quantized.samples.min() >= -full
    assert quantized.samples.max() <= full - 1
    fits = np.rint(block.astype(np.float64) * full)
    assert (quantized.gain == 1.0) == bool(fits.min() >= -full and fits.max() <= full - 1)


@given(arrays(np.int16, (2, 30)))
def test_sixteen_bits_come_back_exactly(integers):
    block = (integers / 32768).astype(np.float32)
    assert np.array_equal(dequantize(quantize(block)), block)


def test_any_reader_of_flac_gets_the_amplitudes_by_the_gain():
    block = excerpt()[:, :50_000] * 3
    quantized = quantize(block)
    assert quantized.gain > 1
    audio, rate = soundfile.read(io.BytesIO(encode(quantized)))
    assert rate == 44_100
    assert np.abs(audio.T * quantized.gain - block).max() <= quantized.gain / 65_536 + 1e-7


def test_the_same_block_gives_the_same_bytes():
    assert encode(quantize(excerpt())) == encode(quantize(excerpt().copy()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(value):
    block = np.zeros((2, 10), np.float32)
    block[1, 3] = value
    with pytest.raises(ValueError, match="not finite"):
        quantize(block)


def test_an_empty_block_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        encode(quantize(np.empty((2, 0), np.float32)))


@pytest.mark.parametrize("bits", [16, 24])
def test_a_changed_byte_in_a_block_is_found(bits: Bits) -> None:
    block = np.random.default_rng(3).uniform(-0.5, 0.5, (2, 4000)).astype(np.float32)
    data = encode(quantize(block, bits))
    assert is_intact(data)
    for position in range(100, len(data), 997):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        assert not is_intact(bytes(damaged)), position
    assert not is_intact(data[: len(data) // 2]) and not is_intact(b"")


@pytest.mark.parametrize(
    "data", [b"", b"no FLAC", encode(quantize(np.full((2, 9000), 0.5, np.float32)))[:60]]
)
def test_bytes_that_are_no_flac_are_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(UndecodableBlock):
        decode_flac(data, 1.0)
