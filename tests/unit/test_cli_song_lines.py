"""The lines of ``bandscope run --watch``: one for each end of a song, and nothing twice."""

import io

import pytest
from rich.console import Console

from bandscope_dagster.cli.song_lines import SongLines
from bandscope_dagster.pipeline.progress import Stage, report

NAMES = {"one-1": "one.wav", "two-2": "two [red].wav"}


@pytest.fixture
def printed() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(printed: io.StringIO) -> SongLines:
    return SongLines(Console(file=printed, width=200), NAMES)


def test_a_step_that_is_retried_repeats_no_line(lines: SongLines, printed: io.StringIO) -> None:
    with lines.shown():
        for _ in range(3):  # attempts
            report("one-1", Stage.DONE)
            report("two-2", Stage.DONE, problem="failed: the disk is slow")
        report("two-2", Stage.DONE)
        lines.ended(["one-1", "two-2"])
        report("one-1", Stage.DONE)
    assert printed.getvalue().splitlines() == [
        "done      one.wav",
        "failed    two [red].wav: the disk is slow",
        "done      two [red].wav",
        "done      one.wav",
    ]


def test_of_a_failed_run_only_what_no_song_says_is_printed(lines: SongLines, printed: io.StringIO) -> None:
    problems = ["1 of 2 songs failed; the others are done.\n  one-1: failed: broken", "no model"]
    lines.print_problems("0123456789", problems, {"one-1": "failed: broken"})
    lines.print_problems(None, problems[1:], ())
    assert printed.getvalue().splitlines() == ["Run 01234567: no model", "A run: no model"]


def test_a_fault_is_printed_once_until_it_is_over(lines: SongLines, printed: io.StringIO) -> None:
    for _ in range(2):
        lines.print_fault("Listing", OSError(28, "No space left on device", "/store"))
        lines.print_fault("Records", RuntimeError("[locked]"))
    lines.faults_are_over()
    lines.print_fault("Records", RuntimeError("[locked]"))
    assert printed.getvalue().splitlines() == [
        "Listing: No space left on device: /store",
        "Records: [locked]",
        "Records: [locked]",
    ]
