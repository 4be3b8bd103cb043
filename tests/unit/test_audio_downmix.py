import numpy as np
import pytest

from bandscope_dagster.audio.downmix import stereo_weights

LAYOUTS = [
    ["FL", "FR", "FC", "LFE", "BL", "BR"],
    ["FL", "FR", "FC", "LFE", "SL", "SR"],
    ["FL", "FR", "BL", "BR"],
    ["FL", "FR", "FC"],
    ["FL", "FR", "FC", "BC"],
    ["FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"],
    ["NONE"] * 5,
]


def test_surround_is_mixed_as_bs775_says():
    left, right = stereo_weights(["FL", "FR", "FC", "LFE", "BL", "BR"])
    assert left == pytest.approx(np.array([1, 0, 0.7071, 0, 0.7071, 0]) / 2.4142, abs=1e-4)
    assert right == pytest.approx(np.array([0, 1, 0.7071, 0, 0, 0.7071]) / 2.4142, abs=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mix_of_full_scale_channels_is_not_clipped(layout):
    weights = stereo_weights(layout)
    assert weights.shape == (2, len(layout))
    assert weights.sum(axis=1).max() == pytest.approx(1.0)
    assert (weights >= 0).all()


def test_one_channel_is_copied_to_both_sides_and_two_stay_unchanged():
    assert np.array_equal(stereo_weights(["FC"]), [[1], [1]])
    assert np.array_equal(stereo_weights(["NONE", "NONE"]), np.eye(2))


def test_unknown_channels_are_taken_as_stereo_pairs():
    assert np.array_equal(stereo_weights(["NONE"] * 4), [[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5]])
