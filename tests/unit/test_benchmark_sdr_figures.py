"""The figures of ``benchmarks.sdr``: by hand, and against museval."""

from __future__ import annotations

import importlib.util
import math
from functools import cache
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.sdr_figures import FRAME, SdrMeter, StemFigures, summarize

Audio = NDArray[np.floating]
STEMS = ("drums", "bass", "vocals")


@cache
def museval_metrics() -> ModuleType:
    """museval's metrics, without the rest of the package, whose import needs an ffmpeg program."""
    package = importlib.util.find_spec("museval")
    assert package is not None and package.submodule_search_locations
    spec = importlib.util.spec_from_file_location(
        "museval_metrics", f"{package.submodule_search_locations[0]}/metrics.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise(frames: int, seed: int, stems: int = len(STEMS)) -> Audio:
    """``(stems, 2, frames)``."""
    return np.random.default_rng(seed).normal(0, 0.2, (stems, 2, frames))


def figures(truth: Audio, estimate: Audio, block: int = 10 * FRAME) -> dict[str, StemFigures]:
    names = STEMS[: len(truth)]
    meter = SdrMeter(names)
    for start in range(0, truth.shape[-1], block):
        parts = [
            dict(zip(names, each[..., start : start + block], strict=True)) for each in (truth, estimate)
        ]
        meter.add(*parts)
    return meter.finish()


def by_museval(truth: Audio, estimate: Audio) -> Audio:
    """museval's v4 ratios of each second, ``(stems, seconds)``, by its function for images as for MUSDB."""
    turned = [np.moveaxis(each, 1, 2) for each in (truth, estimate)]  # (stems, frames, 2)
    sdr, *_ = museval_metrics().bss_eval(
        *turned,
        compute_permutation=False,
        window=FRAME,
        hop=FRAME,
        framewise_filters=False,
        bsseval_sources_version=False,
    )
    return sdr


def test_the_ratios_of_each_second_are_those_of_museval() -> None:
    truth = noise(int(2.7 * FRAME), 0, 2)
    levels = np.linspace(0.01, 1, truth.shape[-1])  # the error grows, so that each second has another ratio
    estimate = truth + levels * noise(truth.shape[-1], 1, 2) + 0.3 * truth[::-1]
    truth[0, :, FRAME + 5000 : FRAME + 30_000] = 0  # a part of a second; the second still has a ratio
    found = figures(truth, estimate)
    wanted = by_museval(truth, estimate)
    assert wanted.shape == (2, 2)
    for stem, ratios in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(stem.seconds, ratios, rtol=0, atol=1e-6)


def test_a_second_with_a_silent_stem_has_no_ratio_in_any_stem_as_in_museval() -> None:
    truth = noise(2 * FRAME, 0, 2)
    estimate = truth + 0.1 * noise(2 * FRAME, 1, 2)
    truth[1, 0, :FRAME], truth[1, 1, :FRAME] = truth[1, 1, :FRAME].copy(), -truth[1, 1, :FRAME].copy()
    found = figures(truth, estimate)
    wanted = by_museval(truth, estimate)
    assert np.isnan(wanted[:, 0]).all() and not np.isnan(wanted[:, 1]).any()
    for stem, ratios in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(stem.seconds, ratios, rtol=0, atol=1e-6)


def test_known_errors_have_known_ratios() -> None:
    truth = np.full((1, 2, 3 * FRAME + 100), 0.5)
    estimate = truth.copy()
    for second, error in enumerate((0.05, 0.005, 0.5, 100.0)):  # the last one is in no whole second
        estimate[..., second * FRAME : (second + 1) * FRAME] += error
    found = figures(truth, estimate)["drums"]
    assert found.seconds == pytest.approx((20.0, 40.0, 0.0)) and found.v4 == pytest.approx(20.0)
    signal = 2 * 0.25 * (3 * FRAME + 100)
    error = 2 * (FRAME * (0.05**2 + 0.005**2 + 0.5**2) + 100 * 100.0**2)
    assert found.mdx == pytest.approx(10 * math.log10(signal / error))


@pytest.mark.parametrize("block", [1000, FRAME, 123_457])
def test_blocks_of_any_length_give_the_figures_of_the_whole(block: int) -> None:
    truth, error = noise(5 * FRAME + 7, 0), noise(5 * FRAME + 7, 1)
    whole, parts = figures(truth, truth + error), figures(truth, truth + error, block)
    for stem in STEMS:
        assert parts[stem].seconds == pytest.approx(whole[stem].seconds, abs=1e-9)
        assert parts[stem].mdx == pytest.approx(whole[stem].mdx, abs=1e-9)


def test_silence_and_exact_stems_have_the_bounds_of_the_definitions() -> None:
    silence = np.zeros((1, 2, FRAME))
    assert figures(silence, silence)["drums"].mdx == 0.0, "1e-7 over 1e-7"
    assert figures(silence, silence)["drums"].v4 is None
    exact = figures(noise(FRAME, 0, 1), noise(FRAME, 0, 1))["drums"]
    assert exact.v4 == math.inf and exact.mdx == pytest.approx(
        10 * math.log10(2 * FRAME * 0.04 / 1e-7), abs=0.1
    )
    short = noise(20_000, 0, 1), noise(20_000, 1, 1)
    wanted = by_museval(*short)
    assert wanted.shape == (1, 1) and figures(*short)["drums"].v4 == pytest.approx(wanted[0, 0], abs=1e-6)


def test_the_summary_is_over_tracks() -> None:
    tracks = [
        {"vocals": StemFigures((1.0, 3.0, 5.0), 2.0)},
        {"vocals": StemFigures((math.nan, 9.0), 4.0)},
        {"vocals": StemFigures((math.nan,), 9.0)},
    ]
    summary = summarize(tracks)["vocals"]
    assert (summary.v4_median, summary.v4_mean) == (6.0, 6.0)
    assert (summary.mdx_median, summary.mdx_mean) == (4.0, 5.0)
