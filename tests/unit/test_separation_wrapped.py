"""A separator that returns some stems of another one."""

import numpy as np
import pytest
import torch
from tiny_shares import FADED, Shares

from bandscope_dagster.errors import SettingsError
from bandscope_dagster.separation.wrapped import ChosenStems


def test_it_returns_the_chosen_rows_and_is_otherwise_the_separator() -> None:
    whole = Shares(batch=3)
    chosen = ChosenStems(whole, ("half", "most"))
    segments = torch.rand(2, 2, FADED.length)
    assert np.array_equal(chosen.separate(segments), whole.separate(segments)[:, [2, 0]])
    assert chosen.stems == ("half", "most") and chosen.identity.params == {"stems": ["half", "most"]}
    assert (chosen.plan, chosen.batch, chosen.device) == (whole.plan, 3, "cpu")
    assert whole.identity.params == {}, "the other one is unchanged"


def test_a_stem_that_the_separator_lacks_is_refused() -> None:
    with pytest.raises(SettingsError, match="shares has no stem 'drums'"):
        ChosenStems(Shares(), ("most", "drums"))
