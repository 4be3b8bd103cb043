"""Resource usage: memory of the process, memory of the device, seconds of loading."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from time import sleep

import numpy as np
import pytest

from bandscope_dagster.pipeline.resource_usage import peak_device_memory_mb, peak_memory_mb, timed

SIZE_MB = 200


def test_the_peak_of_memory_rises_with_what_is_held_and_stays_when_it_is_freed() -> None:
    code = f"""
from bandscope_dagster.pipeline.resource_usage import peak_memory_mb
before = peak_memory_mb()
held = bytearray(b"x") * {SIZE_MB * 1_000_000}
during = peak_memory_mb()
del held
print(before, during, peak_memory_mb())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, during, after = map(float, done.stdout.split())
    assert SIZE_MB * 0.9 < during - before < SIZE_MB * 1.5
    assert after == pytest.approx(during, rel=0.01)


def test_the_peak_is_this_process_s_own_and_not_that_of_the_one_which_started_it() -> None:
    held = np.ones(SIZE_MB * 1_000_000, np.uint8)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        started = pool.submit(peak_memory_mb).result()
    assert started < peak_memory_mb() - held.nbytes / 2e6


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_device_that_counts_no_memory_has_no_peak(device: str) -> None:
    assert peak_device_memory_mb(device) is None


def test_the_peak_of_a_cuda_device_is_that_of_its_tensors() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    before = peak_device_memory_mb("cuda:0")
    held = torch.zeros(SIZE_MB * 1_000_000, dtype=torch.uint8, device="cuda:0")
    after = peak_device_memory_mb("cuda:0")
    assert before is not None and after is not None
    assert after - before > SIZE_MB * 0.9 and held.is_cuda


def test_loading_is_timed_and_what_was_loaded_comes_back() -> None:
    loaded, seconds = timed(lambda: sleep(0.05) or "a model")
    assert loaded == "a model"
    assert 0.05 <= seconds < 1.0
