"""The screen of ``bandscope run --watch``: a line for each song at work, and one for each song that is done."""

from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from bandscope_dagster.cli.terminal import one_line, words_of
from bandscope_dagster.errors import FAILED, counted, is_failure
from bandscope_dagster.pipeline.progress import Progress as Report
from bandscope_dagster.pipeline.progress import Stage, listening

NAME_WIDTH: Final = 40  # of 80 columns
SHOWN: Final = {
    Stage.CHECKING: "checking",
    Stage.CHECKED: "checked",
    Stage.WAITING: "next",
    Stage.ANALYZING: "separating, tagging",
}


class SongLines:
    """Turns reports, which come from several threads, into lines."""

    def __init__(self, console: Console, names: Mapping[str, str]) -> None:
        """``names`` are the songs' file names by id; it may grow."""
        self._console, self._names = console, names
        self._lock = Lock()
        self._seen: dict[str, float] = {}
        self._lengths: dict[str, float] = {}  # song → audio for the models, in seconds
        self._rows: dict[str, TaskID] = {}
        self._printed: set[str] = set()
        self._ended: dict[
            str, str | None
        ] = {}  # song → its end in the run that goes on; a step may be retried
        self._faults: dict[str, str] = {}  # what cannot be done now → why
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=NAME_WIDTH)),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[stage]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            expand=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )

    @contextmanager
    def shown(self) -> Generator[None]:
        """Show the lines during the block."""
        with self._bars, listening(self._take):
            yield

    def saw(self, songs: Iterable[str]) -> None:
        """Note that these uploads were found now: their lines say how long they took from here."""
        with self._lock:
            self._seen |= dict.fromkeys(songs, monotonic())

    def ended(self, songs: Iterable[str]) -> None:
        """Remove the lines of these songs: their run is over."""
        with self._lock:
            for song in songs:
                self._remove(song)
                self._ended.pop(song, None)

    def print_fault(self, what: str, error: Exception) -> None:
        """Print what cannot be done now, and why, unless that was printed and is not over."""
        words = words_of(error) if isinstance(error, OSError) else str(getattr(error, "orig", None) or error)
        if self._faults.get(what) != words:
            self._faults[what] = words
            self._print(f"[red]{what}:[/red] {escape(one_line(words))}")

    def faults_are_over(self) -> None:
        """Print the next fault, also if it is the same."""
        self._faults.clear()

    def print_once(self, line: str) -> None:
        """Print a line in Rich's markup, unless it was printed before."""
        if line not in self._printed:
            self._printed.add(line)
            self._print(line)

    def print_problems(self, run_id: str | None, problems: Iterable[str], songs: Collection[str]) -> None:
        """Print why a run failed, but for the ``songs`` that its steps named: each has its own line."""
        which = f"Run {run_id[:8]}" if run_id else "A run"
        for problem in problems:
            if not any(song in problem for song in songs):
                self._print(f"[red]{which}:[/red] {escape(problem)}")

    def print_given_up(self, song: str, runs: int) -> None:
        """Print that a song is not computed again."""
        name = escape(self._name(song))
        self._print(
            f"[red]given up[/red]  {name}: {counted(runs, 'run')} failed; the next start tries it again"
        )

    def print_full(self, songs: int) -> None:
        """Print that songs wait for room on the disk."""
        wait = f"{counted(songs, 'song')} {'waits' if songs == 1 else 'wait'}"
        self._print(f"[yellow]The disk is full: {wait} until it has room.[/yellow]")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def _take(self, report: Report) -> None:
        with self._lock:
            song = report.song_id
            if report.stage is Stage.DONE:
                self._remove(song)
                if song not in self._ended or self._ended[song] != report.problem:
                    self._print_end(song, report.problem)
                self._ended[song] = report.problem
                return
            if report.stage is Stage.WAITING:
                self._lengths[song] = report.seconds
            if song not in self._rows:
                self._rows[song] = self._bars.add_task(escape(self._name(song)), total=None, stage="")
            row = self._rows[song]
            self._bars.update(row, stage=SHOWN[report.stage], total=self._lengths.get(song))
            if report.stage is Stage.ANALYZING:
                self._bars.advance(row, report.seconds)

    def _remove(self, song: str) -> None:
        self._lengths.pop(song, None)
        if (row := self._rows.pop(song, None)) is not None:
            self._bars.remove_task(row)

    def _print_end(self, song: str, problem: str | None) -> None:
        name = escape(self._name(song))
        began = self._seen.pop(song, None)
        if problem is None:
            after = "" if began is None else f" after {monotonic() - began:.1f} s"
            line = f"[green]done[/green]      {name}{after}"
        elif is_failure(problem):
            line = f"[red]failed[/red]    {name}: {escape(one_line(problem.removeprefix(f'{FAILED}: ')))}"
        else:
            line = f"[yellow]rejected[/yellow]  {name}: {escape(one_line(problem))}"
        self._print(line)

    def _name(self, song: str) -> str:
        return one_line(self._names.get(song, song))
