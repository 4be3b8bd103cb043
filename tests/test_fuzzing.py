"""A short run of ``python -m fuzzing``, and that it would find something."""

from dataclasses import replace
from random import Random

import pytest

from fuzzing.__main__ import descriptors, make, run
from fuzzing.mutate import mutated
from fuzzing.targets import TARGETS, Target

INPUTS = {"uploads": 150, "settings": 100}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_must_hold_does_for_mutated_input(target: Target) -> None:
    run(target, range(4), seed=1)
    before = descriptors()
    report = run(target, range(INPUTS.get(target.name, 1000)), seed=1)
    assert not report.defects, next(iter(report.defects.values()))
    assert descriptors() == before
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
    assert all("at most 0 are allowed" in defect for defect in report.defects.values())
    assert len(report.defects) == 3


def test_mutations_differ_and_can_be_repeated() -> None:
    seeds = [bytes(range(256)) * 8, b"RIFF" * 100]
    many = [mutated(Random(number), seeds) for number in range(200)]
    assert len(set(many)) > 150
    assert many == [mutated(Random(number), seeds) for number in range(200)]
