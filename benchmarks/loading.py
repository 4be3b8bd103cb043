"""The share of loading in the time of a collection: its terms are measured, its formula is compared with a simulation.

    python -m benchmarks.loading [--rounds 3] [--read 1.0]

Measured in new processes, in CPU seconds, which a busy machine changes least: importing the definitions, loading the
embedded models, and the first questions to a server. For Qwen-Omni in the process, whose weights are not here, loading
is estimated: its bytes over the measured speed of SHA-256, plus its bytes over ``--read``, an assumed speed of reading
in GB/s. Then, for each model and size of runs, the formula

    seconds = (runs × load + songs × song) / GPUs, with runs = songs / songs per run, rounded up

is compared with the simulation of ``benchmarks.scale``, run by run. The last line is JSON.
"""

import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from benchmarks.measuring import ROOT
from benchmarks.scale import work_off
from tests.support.chat_completions import MODEL, chat_completions

SONGS: Final = 10_000
GPUS: Final = 4
BATCHES: Final = (16, 64, 128, 256, 512)
LOADING_SHARE: Final = 0.1  # most that is recommended, of the whole time
QWEN_GB: Final = {"qwen2.5-omni": 22.0, "qwen3-omni": 70.0}
EMBEDDED_SONG_S: Final = 44.0 / 2  # seconds on two cores: docs/scale.md
QWEN_SONG_S: Final = 4.17  # seconds of a GPU: docs/scale.md

_PARTS: Final = {
    "definitions": "import bandscope_dagster.definitions",
    "embedded models": (
        "from bandscope_dagster.orchestration.resources import Models\n"
        "from bandscope_dagster.settings import Settings\n"
        "began()\n"
        "models = Models(Settings(device='cpu'))\n"
        "models.separator(), models.tagger()"
    ),
    "server": (
        "from bandscope_dagster.orchestration.resources import Models\n"
        "from bandscope_dagster.settings import Settings\n"
        "began()\n"
        "Models(Settings(tagger='qwen2.5-omni', tagger_url=URL)).tagger()"
    ),
}
_TIMED: Final = """
import json, time
def began():
    global cpu, wall
    cpu, wall = time.process_time(), time.perf_counter()
began()
{code}
print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]))
"""


@dataclass(frozen=True, slots=True)
class Term:
    """A part of loading, in seconds: the median of the rounds."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One model in runs of one size."""

    engine: str
    load_s: float
    song_s: float
    songs_per_run: int
    formula_h: float
    simulated_h: float
    loading: float  # share of the time, by the formula


def timed(part: str, rounds: int, url: str) -> Term:
    """The time of one part of loading, each time in a new process."""
    code = _TIMED.format(code=_PARTS[part].replace("URL", repr(url)))
    found: list[Sequence[float]] = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return Term(*(round(statistics.median(values), 2) for values in zip(*found, strict=True)))


def hashing_gb_s() -> float:
    """The speed of SHA-256 on one core, in GB per second."""
    block = bytes(2**28)
    began = time.process_time()
    hashlib.sha256(block).digest()
    return len(block) / 1e9 / (time.process_time() - began)


def formula_s(songs: int, batch: int, gpus: int, load_s: float, song_s: float) -> float:
    """The seconds of a collection; see the module's docstring."""
    return (math.ceil(songs / batch) * load_s + songs * song_s) / gpus


def simulated_s(songs: int, batch: int, gpus: int, load_s: float, song_s: float) -> float:
    """The same, run by run: each GPU takes the next run when it is free."""
    batches = [min(batch, songs - first) for first in range(0, songs, batch)]
    return work_off(batches, [], gpus, song_s, load_s, small_first=True)[1]


def fewest_songs(load_s: float, song_s: float) -> int:
    """The songs of a run from which on loading takes at most ``LOADING_SHARE`` of its time."""
    return math.ceil(load_s * (1 - LOADING_SHARE) / (LOADING_SHARE * song_s))


def main() -> None:
    """Measure the terms, compare the formula, and print both."""
    parser = argparse.ArgumentParser(description="Measure loading and its share of the time.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--read", type=float, default=1.0, help="GB/s, assumed for reading weights (default: 1)"
    )
    arguments = parser.parse_args()
    with chat_completions(model=MODEL) as server:
        terms = {part: timed(part, arguments.rounds, server.url) for part in _PARTS}
    for part, term in terms.items():
        print(f"{part:20}{term.cpu_s:8.2f} CPU s{term.wall_s:8.2f} s")
    speed = hashing_gb_s()
    print(f"SHA-256: {speed:.2f} GB/s; reading, assumed: {arguments.read:g} GB/s\n")

    start_s = terms["definitions"].cpu_s
    engines = {
        "embedded": (start_s + terms["embedded models"].cpu_s, EMBEDDED_SONG_S),
        "server": (start_s + terms["server"].cpu_s, QWEN_SONG_S),
    }
    for name, gigabytes in QWEN_GB.items():
        engines[name] = (start_s + gigabytes / speed + gigabytes / arguments.read, QWEN_SONG_S)
    rows: list[Row] = []
    for engine, (load_s, song_s) in engines.items():
        print(f"{engine}: {load_s:.1f} s to load; {fewest_songs(load_s, song_s)} songs per run, or more")
        for batch in BATCHES:
            formula = formula_s(SONGS, batch, GPUS, load_s, song_s)
            simulated = simulated_s(SONGS, batch, GPUS, load_s, song_s)
            share = math.ceil(SONGS / batch) * load_s / GPUS / formula
            rows.append(Row(engine, load_s, song_s, batch, formula / 3600, simulated / 3600, share))
            print(f"{batch:8}{formula / 3600:8.2f} h{simulated / 3600:8.2f} h simulated{share:8.1%} loading")
    print(
        json.dumps({name: asdict(term) for name, term in terms.items()} | {"rows": [asdict(r) for r in rows]})
    )


if __name__ == "__main__":
    main()
