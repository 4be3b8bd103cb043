"""Models of several runs: their calls never overlap."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from level_tagger import ByLevel, always

from bandscope_dagster.pipeline.model_turns import ModelThread
from bandscope_dagster.tagging.protocol import Heard

CALLS = 50


def test_calls_of_several_runs_never_overlap() -> None:
    calling = threading.Lock()
    calls = Counter[str]()

    def heard(level: float) -> Heard:
        assert calling.acquire(blocking=False), "another call goes on"
        calls[threading.current_thread().name] += 1
        calling.release()
        return always()(level)

    models = ModelThread()
    batch, late = (models.tagger(ByLevel(heard)) for _ in range(2))
    windows = np.ones((1, 10), np.float32)
    with ThreadPoolExecutor(2) as runs:
        heard_of = list(runs.map(lambda run: [run.tag(windows) for _ in range(CALLS)], (batch, late)))
    assert [len(each) for each in heard_of] == [CALLS, CALLS]
    assert list(calls.values()) == [2 * CALLS], "all calls are in one thread"
    assert (batch.identity, batch.batch, batch.fixed_batch) == (ByLevel(heard).identity, 4, True)
