"""A tagger on a server: the places that are taken over time, memory and CPU of the client.

    python -m benchmarks.served_tagger [--windows 1000] [--at-once 64] [--delay 20] [--spread 0.5]

A server in a process of its own answers each request after ``--delay`` seconds, or, with ``--spread``, after a random
time of the same mean: 0.5 is from half of it to one and a half. Windows of 30 s go through the same queue as in a run.
The best possible time is delay × windows / places. The last line is JSON.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import track

from bandscope_dagster.tagging.options import ServerOptions, TaggingOptions
from bandscope_dagster.tagging.qwen_omni import SAMPLE_RATE, WINDOW_S
from bandscope_dagster.tagging.served_omni import load_served_omni
from bandscope_dagster.tagging.source_tags import SourceTags
from bandscope_dagster.tagging.window_flow import WindowFlow
from benchmarks.measuring import MIB
from tests.support.chat_completions import MODEL, Asked, ChatCompletions, Reply

WINDOWS_PER_SONG: Final = 8  # a song of four minutes
SEED: Final = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement."""

    windows: int
    at_once: int
    delay_s: float
    spread: float
    seconds: float  # from the first request to the last answer, on the server's clock
    over_ideal: float  # the same, over delay × windows / places
    most_at_once: int
    cpu_ms: float  # of the client, per window
    memory_mib: tuple[float, ...]  # of the client's process, resident: after each quarter of the windows


@dataclass(frozen=True, slots=True)
class Served:
    """The server's own record."""

    windows: int
    seconds: float
    most_at_once: int


def serve(delay_s: float, spread: float) -> None:
    """Serve until the input ends; print the URL first, and the record at the end."""
    delays = random.Random(SEED)
    times: list[float] = []

    def answer(asked: Asked) -> Reply:
        if asked.is_probe:
            return Reply()
        delay = delay_s * delays.uniform(1 - spread, 1 + spread)
        times.append(time.monotonic())
        times.append(times[-1] + delay)
        return Reply('["piano", "drums"]', delay_s=delay)

    server = ChatCompletions(answer, keeps_bodies=False)
    print(server.url, flush=True)
    sys.stdin.read()
    print(json.dumps(asdict(Served(len(times) // 2, max(times) - min(times), server.most_in_flight))))


def resident_mib() -> float:
    """The resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def measure(windows: int, at_once: int, delay_s: float, spread: float) -> Measured:
    """Send the windows to a new server and wait for their answers."""
    command = [sys.executable, "-m", "benchmarks.served_tagger", "--serve"]
    command += ["--delay", str(delay_s), "--spread", str(spread)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        server = ServerOptions(process.stdout.readline().strip(), requests=at_once)
        tagger = load_served_omni("qwen2.5-omni", MODEL, server, TaggingOptions())
        flow = WindowFlow(tagger)
        noise = np.random.default_rng(SEED)
        memory: list[float] = []
        began = time.process_time()
        for song in track(range(-(-windows // WINDOWS_PER_SONG)), transient=True):
            source = SourceTags("mixture", tagger, SAMPLE_RATE)
            for _ in range(min(WINDOWS_PER_SONG, windows - song * WINDOWS_PER_SONG)):
                block = noise.uniform(-0.5, 0.5, (1, round(WINDOW_S * SAMPLE_RATE))).astype(np.float32)
                flow.add(source, source.push(block))
                flow.collect(wait=False)
            flow.add(source, source.finish())
            if (song + 1) * WINDOWS_PER_SONG * 4 >= windows * (len(memory) + 1):
                memory.append(resident_mib())
            assert source.error is None
        while flow.collect(wait=True):
            pass
        cpu_ms = 1000 * (time.process_time() - began) / windows
        served = Served(**json.loads(process.communicate()[0]))
    assert served.windows == windows, served
    ideal = delay_s * windows / at_once
    return Measured(
        windows,
        at_once,
        delay_s,
        spread,
        seconds=served.seconds,
        over_ideal=served.seconds / ideal,
        most_at_once=served.most_at_once,
        cpu_ms=cpu_ms,
        memory_mib=tuple(memory),
    )


def main() -> None:
    """Run the measurement and print it."""
    parser = argparse.ArgumentParser(description="Measure the client of a tagger's server.")
    parser.add_argument("--windows", type=int, default=1000, metavar="N")
    parser.add_argument(
        "--at-once", type=int, default=64, metavar="N", help="places of the server (default: 64)"
    )
    parser.add_argument("--delay", type=float, default=20.0, help="seconds of an answer (default: 20)")
    parser.add_argument("--spread", type=float, default=0.0, help="share by which it varies (default: 0)")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.delay, arguments.spread)
        return
    found = measure(arguments.windows, arguments.at_once, arguments.delay, arguments.spread)
    rounded = replace(
        found,
        seconds=round(found.seconds, 1),
        over_ideal=round(found.over_ideal, 3),
        cpu_ms=round(found.cpu_ms, 1),
        memory_mib=tuple(round(each) for each in found.memory_mib),
    )
    print(json.dumps(asdict(rounded)))


if __name__ == "__main__":
    main()
