"""Run all code that reads foreign data on mutated input, and print the outcomes.

    python -m fuzzing [--target NAME] [--inputs N] [--seed S] [--only I] [--keep DIR]

Each input depends only on the seed and its number: ``--only`` repeats one. Inputs that cause a defect are kept in DIR.
The process also counts its open descriptors, its connections and its memory. The last line is JSON.
"""

import argparse
import json
import os
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from rich.progress import track

from fuzzing.mutate import mutated
from fuzzing.targets import TARGETS, Target

Checked = tuple[int, str | None, str, float]
"""Number of an input, its defect if any, its outcome, and the seconds that it took."""

sockets = Counter[str]()  # connections and lookups of this process, by audit event


def count_sockets(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook that counts the connections and name lookups of this process."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        sockets[event] += 1


@dataclass(slots=True)
class Report:
    """The outcomes of one target's inputs."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    defects: dict[int, str] = field(default_factory=dict[int, str])
    slowest_s: float = 0.0


def make(target: Target, seeds: Sequence[bytes], seed: int, number: int) -> bytes:
    """The input with this number."""
    return mutated(Random(f"{target.name}/{seed}/{number}"), seeds)


def run(target: Target, numbers: Sequence[int], seed: int, keep: Path | None = None) -> Report:
    """Check the inputs with these numbers."""
    report = Report()
    seeds = target.seeds()

    def check(number: int) -> Checked:
        data = make(target, seeds, seed, number)
        began = time.perf_counter()
        try:
            outcome, defect = target.check(data), None
        except Exception:
            outcome, defect = "defect", traceback.format_exc()
        took = time.perf_counter() - began
        if defect is None and took > target.limit_s:
            outcome, defect = "defect", f"took {took:.1f} s; at most {target.limit_s:g} s are allowed"
        if defect is not None and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{target.name}-{seed}-{number}").write_bytes(data)
        return number, defect, outcome, took

    for number, defect, outcome, took in track(
        _checked(check, numbers, target), f"{target.name:10}", total=len(numbers)
    ):
        report.outcomes[outcome] += 1
        report.slowest_s = max(report.slowest_s, took)
        if defect is not None:
            report.defects[number] = defect
    return report


def _checked(check: Callable[[int], Checked], numbers: Sequence[int], target: Target) -> Iterator[Checked]:
    if not target.parallel:
        yield from map(check, numbers)
        return
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for start in range(0, len(numbers), 1000):  # so that not all results are in memory at once
            yield from threads.map(check, numbers[start : start + 1000])


def descriptors() -> int:
    """The number of open descriptors of this process."""
    return len(os.listdir("/dev/fd"))


def main() -> None:
    """Run the targets and print the outcomes of their inputs."""
    parser = argparse.ArgumentParser(description="Run all code that reads foreign data on mutated input.")
    parser.add_argument("--target", choices=[target.name for target in TARGETS], help="default: all")
    parser.add_argument(
        "--inputs", type=int, default=20_000, metavar="N", help="of each target; default: 20000"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--only", type=int, metavar="I", help="check only the input with this number")
    parser.add_argument("--keep", type=Path, default=Path("fuzzing-defects"), metavar="DIR")
    arguments = parser.parse_args()
    numbers = range(arguments.inputs) if arguments.only is None else [arguments.only]
    sys.addaudithook(count_sockets)
    found: dict[str, object] = {}
    defects = 0
    for target in TARGETS:
        if arguments.target not in (None, target.name):
            continue
        run(target, numbers[:50], arguments.seed)  # opens all that is opened only once
        before, most = descriptors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = run(target, numbers, arguments.seed, arguments.keep)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most
        print(f"\n{target.name}: {len(numbers):,} inputs, slowest {report.slowest_s:.2f} s")
        for outcome, count in report.outcomes.most_common():
            print(f"  {outcome:20}{count:8,}")
        print(
            f"  descriptors left open: {descriptors() - before}; peak memory grew by {grown / 1024:.0f} MiB"
        )
        for number, defect in list(report.defects.items())[:5]:
            print(f"  input {number} (python -m fuzzing --target {target.name} --only {number}):\n{defect}")
        found[target.name] = dict(report.outcomes)
        defects += len(report.defects) + max(0, descriptors() - before)
    print(f"\nconnections of this process: {sum(sockets.values())}")
    defects += sum(sockets.values())
    print(json.dumps({"defects": defects, "outcomes": found}))
    sys.exit(1 if defects else 0)


if __name__ == "__main__":
    main()
