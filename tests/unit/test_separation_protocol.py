import numpy as np
import pytest

from bandscope_dagster.separation.protocol import SegmentPlan


@pytest.mark.parametrize(("length", "stride", "lead"), [(8, 9, 0), (8, 0, 0), (8, 4, 4), (8, 4, -1)], ids=str)
def test_a_plan_that_would_lose_frames_is_refused(length: int, stride: int, lead: int) -> None:
    with pytest.raises(ValueError, match=rf"found leads=\({lead},\), stride={stride}, length={length}"):
        SegmentPlan(length, stride, (lead,))


def test_each_lead_must_be_within_the_stride() -> None:
    with pytest.raises(ValueError, match="0 <= lead < stride"):
        SegmentPlan(8, 4, (0, 4))


@pytest.mark.parametrize("weights", [np.ones(7), np.array([0, 1, 1, 1, 1, 1, 1, 1])], ids=["short", "zero"])
def test_weights_that_cannot_be_divided_by_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match="8 values, all above zero"):
        SegmentPlan(8, 4, weights=weights.astype(np.float32))


FADED = np.concatenate([[0.0, 0.5], np.ones(4), [0.5, 0.0]]).astype(np.float32)


@pytest.mark.parametrize(
    "changes",
    [{"leads": (2,)}, {"centred": True}, {"weights": None}, {"stride": 7}, {"stride": 8}],
    ids=str,
)
def test_a_reflected_plan_that_would_lose_frames_is_refused(changes: dict) -> None:
    SegmentPlan(8, 4, weights=FADED, reflected=True)
    values = {"length": 8, "stride": 4, "weights": FADED, "reflected": True}
    with pytest.raises(ValueError, match="a reflected plan has weights, an overlap, one pass without a lead"):
        SegmentPlan(**(values | changes))


def test_only_the_ends_of_a_reflected_plan_may_be_zero() -> None:
    with pytest.raises(ValueError, match="above zero, but for the ends of a reflected plan"):
        SegmentPlan(8, 4, weights=FADED * (np.arange(8) != 3), reflected=True)
    with pytest.raises(ValueError, match=r"8 values, all above zero$"):
        SegmentPlan(8, 4, weights=FADED)
