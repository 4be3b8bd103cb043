"""The progress of ``bandscope run`` on the screen: all songs, each song at work, and an estimate of what is left."""

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from bandscope_dagster.cli.terminal import one_line
from bandscope_dagster.pages.text import clock
from bandscope_dagster.pipeline import progress
from bandscope_dagster.pipeline.progress import Stage, listening

NAME_WIDTH: Final = 34  # of 80 columns
WORK: Final = {
    "decoded_waveforms": "decoding",
    "stems": "separating",
    "instrument_tags": "tagging",
    "stem_instrument_tags": "tagging",
}


@contextmanager
def song_bars(
    console: Console, assets: Collection[str], names: Mapping[str, str], songs: int
) -> Generator[None]:
    """Show the progress of the ``songs`` songs of all batches that this process runs during the block.

    ``assets`` are those that are computed, ``names`` the songs' file names by id.
    """
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True, max_width=NAME_WIDTH))
    bars = Progress(
        SpinnerColumn(finished_text="✓"),
        name,
        BarColumn(bar_width=None),
        TextColumn("{task.fields[amount]}", justify="right"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        refresh_per_second=4,
        redirect_stdout=False,  # what a step prints belongs into Dagster's log of the step
        redirect_stderr=False,
        expand=True,
    )
    with bars, listening(_SongBars(bars, assets, names, songs).take):
        yield


class _SongBars:
    """Turns reports, which come from several threads, into bars: two for all songs, one for each song at work."""

    def __init__(self, bars: Progress, assets: Collection[str], names: Mapping[str, str], songs: int) -> None:
        self._bars, self._names, self._songs = bars, names, songs
        self._lock = Lock()
        self._checked, self._done = set[str](), set[str]()
        self._lengths: dict[str, float] = {}  # song → audio for the models, in seconds
        self._heard: dict[str, float] = {}  # song → of it, what the models got
        self._length_sum = self._heard_sum = 0.0  # of all songs; a song that is done was heard in full
        self._began: float | None = None  # the time of the models' first report
        self._heard_then = 0.0  # seconds of audio before it
        self._rows: dict[str, TaskID] = {}  # of songs at work
        every = {"songs": "checking"} if "songs" in assets else {}
        work = dict.fromkeys(WORK[asset] for asset in assets if asset in WORK)
        every |= {"analyze": ", ".join(work)} if work else {}
        self._all = {step: self._add(title, songs, f"0/{songs}") for step, title in every.items()}

    def take(self, report: progress.Progress) -> None:
        """Show a report."""
        with self._lock:
            song = report.song_id
            match report.stage:
                case Stage.CHECKING:
                    self._begin(song, None)
                case Stage.CHECKED:
                    self._checked.add(song)
                    self._end(song, "songs", self._checked)
                case Stage.WAITING:
                    self._length_sum += report.seconds - self._lengths.get(song, 0.0)
                    self._lengths[song] = report.seconds
                    self._hear(song, 0.0)
                case Stage.ANALYZING:
                    self._advance(song, report.seconds)
                case Stage.DONE:
                    self._done.add(song)
                    self._hear(song, self._lengths.get(song, 0.0))
                    self._end(song, "analyze", self._done)

    def _add(self, title: str, total: float | None, amount: str) -> TaskID:
        return self._bars.add_task(escape(title), total=total, amount=amount, left="")

    def _begin(self, song: str, total: float | None) -> None:
        if song not in self._rows:
            self._rows[song] = self._add(f"  {one_line(self._names.get(song, song))}", total, "")

    def _end(self, song: str, step: str, songs: Collection[str]) -> None:
        if (row := self._rows.pop(song, None)) is not None:
            self._bars.remove_task(row)
        if step in self._all:
            bar, amount = self._all[step], f"{len(songs)}/{self._songs}"
            self._bars.update(bar, completed=len(songs), amount=amount)
            if len(songs) == self._songs:
                self._bars.update(bar, left="")

    def _advance(self, song: str, seconds: float) -> None:
        length = self._lengths.get(song, 0.0)
        self._begin(song, length)
        heard = min(self._heard.get(song, 0.0) + seconds, length)
        self._hear(song, heard)
        amount = f"{clock(heard)} of {clock(length)}" if heard < length else "storing"
        self._bars.update(self._rows[song], completed=heard, amount=amount)
        if "analyze" in self._all:
            self._bars.update(self._all["analyze"], left=self._left())

    def _hear(self, song: str, seconds: float) -> None:
        """Set how much of a song the models got."""
        self._heard_sum += seconds - self._heard.get(song, 0.0)
        self._heard[song] = seconds

    def _left(self) -> str:
        """The time that is left at the models' speed so far; songs of later batches count with the mean length."""
        heard = self._heard_sum
        if self._began is None:
            self._began, self._heard_then = monotonic(), heard
        if heard == self._heard_then:
            return ""
        later = self._songs - len(self._heard)
        mean = self._length_sum / len(self._lengths)
        rest = self._length_sum - heard + later * mean
        return f"{clock((monotonic() - self._began) * rest / (heard - self._heard_then))} left"
