"""The product's code location, with a clock where Dagster's steps call the library: for ``benchmarks.orchestration``.

A step asks the library for one song after the other. The time in which it waits for the next is work; what it does
in between (events, metadata, logs) is orchestration. Each step leaves its times of work in the folder ``WORK_FOLDER``.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import assets.analysis
import assets.songs
from bandscope_dagster.definitions import defs

__all__ = ["defs"]

P = ParamSpec("P")
T = TypeVar("T")

WORK_FOLDER: Final = Path(os.environ["BENCHMARK_WORK_FOLDER"])
"""The benchmark sets this variable for the daemon, and so for its runs."""


def timed(work: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """``work``, which leaves a file with the [begin, end] (seconds since 1970) of each of its steps."""

    @wraps(work)
    def generator(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        times: list[tuple[float, float]] = []
        items = work(*args, **kwargs)
        try:
            while True:
                began = time.time()
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    times.append((began, time.time()))
                yield item
        finally:
            path = WORK_FOLDER / f"{work.__name__}-{uuid.uuid4().hex}.json"
            path.write_text(json.dumps(times))

    return generator


assets.songs.check_songs = timed(assets.songs.check_songs)
assets.analysis.analyze_batch = timed(assets.analysis.analyze_batch)
