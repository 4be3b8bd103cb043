import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandscope_dagster.audio.blocks import Reblock


@given(
    frames=st.integers(1, 50),
    lengths=st.lists(st.integers(0, 130), max_size=12),
    leading=st.sampled_from([(), (2,), (4, 2)]),
)
def test_blocks_are_the_stream_cut_to_one_length(frames, lengths, leading):
    total = sum(lengths)
    stream = np.random.default_rng(total).standard_normal((*leading, total)).astype(np.float32)
    reblock = Reblock(frames)
    blocks = [
        block
        for end, length in zip(np.cumsum(lengths), lengths, strict=True)
        for block in reblock.push(stream[..., end - length : end])
    ]
    rest = reblock.finish()
    assert all(block.shape == (*leading, frames) for block in blocks)
    assert (rest is None) == (total % frames == 0)
    assert rest is None or rest.shape == (*leading, total % frames)
    together = np.concatenate([np.empty((*leading, 0)), *blocks, *([] if rest is None else [rest])], axis=-1)
    assert np.array_equal(together, stream)


def test_a_block_inside_one_array_is_not_copied():
    array = np.zeros((2, 1000), np.float32)
    assert all(np.shares_memory(block, array) for block in Reblock(100).push(array))


def test_a_finished_stream_starts_anew():
    reblock = Reblock(10)
    reblock.push(np.ones((2, 3), np.float32))
    assert reblock.finish().shape == (2, 3)
    assert reblock.finish() is None


def test_a_block_of_no_frames_is_refused():
    with pytest.raises(ValueError, match="at least 1 frame"):
        Reblock(0)
