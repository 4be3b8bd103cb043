"""Short runs of ``python -m fuzzing`` and ``python -m fuzzing.guided``, which find planted defects."""

import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from long_forms import quick_or_long

from fuzzing.__main__ import descriptors, make, run
from fuzzing.mutate import mutated
from fuzzing.targets import TARGETS, Target

INPUTS = {"uploads": quick_or_long(150, long=20_000), "settings": 100}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_must_hold_does_for_mutated_input(target: Target) -> None:
    run(target, range(4), seed=1)
    gc.collect()  # closes descriptors of earlier tests
    before = descriptors()
    report = run(target, range(INPUTS.get(target.name, 1000)), seed=1)
    assert not report.defects, next(iter(report.defects.values()))
    assert descriptors() <= before
    if target.name == "uploads":
        assert {"song", "truncated", "not_audio"} <= set(report.outcomes)


def test_an_input_that_breaks_what_must_hold_is_told_and_kept(tmp_path) -> None:
    def check(data: bytes) -> str:
        assert data[:1] < b"\x80", "the first byte is large"
        return "fine"

    target = Target("bytes", lambda: [bytes(64)], check, limit_s=1.0)
    report = run(target, range(300), seed=0, keep=tmp_path)
    assert 0 < len(report.defects) < 300
    assert report.outcomes["defect"] == len(report.defects)
    for number, defect in report.defects.items():
        assert "the first byte is large" in defect
        kept = (tmp_path / f"bytes-0-{number}").read_bytes()
        assert kept[:1] >= b"\x80" and kept == make(target, target.seeds(), 0, number)


def test_an_input_that_takes_too_long_is_a_defect() -> None:
    target = replace(TARGETS[0], name="slow", seeds=lambda: [b"x"], check=lambda data: "fine", limit_s=0.0)
    report = run(target, range(3), seed=0)
    assert all("at most 0 s are allowed" in defect for defect in report.defects.values())
    assert len(report.defects) == 3


def test_mutations_differ_and_can_be_repeated() -> None:
    seeds = [bytes(range(256)) * 8, b"RIFF" * 100]
    many = [mutated(Random(number), seeds) for number in range(200)]
    assert len(set(many)) > 150
    assert many == [mutated(Random(number), seeds) for number in range(200)]


only_linux = pytest.mark.skipif(sys.platform != "linux", reason="Atheris is built for Linux")


def guided(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a process that fuzzes by coverage.

    A shell starts it: libFuzzer limits the process's peak memory, which on Linux begins with the size of its parent,
    and the test process is large.
    """
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    return subprocess.run(
        [*shell, sys.executable, *command], capture_output=True, text=True, errors="replace"
    )


@only_linux
def test_guided_by_coverage_what_must_hold_does(tmp_path: Path) -> None:
    ended = guided("-m", "fuzzing.guided", "--inputs", "2000", "--keep", str(tmp_path))
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "broken: none" in ended.stdout and ended.stderr.count("DONE") == 3
    assert not list(tmp_path.iterdir())


@only_linux
def test_coverage_leads_to_what_mutation_alone_would_not_hit(tmp_path: Path) -> None:
    keep, corpus = tmp_path / "kept", tmp_path / "corpus"
    corpus.mkdir()
    planted = """
import sys, atheris
from pathlib import Path
from fuzzing.guided import fuzz
from fuzzing.targets import Target

@atheris.instrument_func
def check(data):
    if data[:1] == b"d":
        if data[1:2] == b"e":
            if data[2:3] == b"e":
                assert data[3:4] != b"p", "found"
    return "fine"

fuzz(Target("planted", lambda: [bytes(8)], check, 5.0), 500_000, 1, Path(sys.argv[1]), Path(sys.argv[2]))
"""
    ended = guided("-c", planted, str(keep), str(corpus))
    assert ended.returncode != 0 and "AssertionError: found" in ended.stdout + ended.stderr
    (kept,) = keep.iterdir()
    assert kept.name.startswith("planted-crash-") and kept.read_bytes().startswith(b"deep")
