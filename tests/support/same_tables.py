"""Comparison of the tables that two runs wrote."""

from collections.abc import Sequence

import numpy as np
from platforms import PER_SONG, WHEN, Platform
from polars.testing import assert_frame_equal

from bandscope_dagster.audio.flac import decode_flac


def assert_same_tables(killed: Platform, calm: Platform, but: Sequence[str] = ()) -> None:
    """Check that every per-song table has the same rows in both platforms, without the columns in ``but``.

    Two processes may compute values that differ in the last bit, so floats are compared with a tolerance.
    """
    assert killed.digests().keys() == calm.digests().keys()
    for table in PER_SONG:
        ours, theirs = (place.table(table).drop(*WHEN, *but, strict=False) for place in (killed, calm))
        if "audio" in ours.columns:
            for mine, other in zip(ours.iter_rows(named=True), theirs.iter_rows(named=True), strict=True):
                samples = [decode_flac(row["audio"]["bytes"], row["gain"]) for row in (mine, other)]
                np.testing.assert_allclose(*samples, rtol=0, atol=2 / 2**15)  # two steps of 16 bits
            ours, theirs = ours.drop("audio"), theirs.drop("audio")
        assert_frame_equal(ours, theirs, check_exact=False, rel_tol=1e-3, abs_tol=1e-3)
