"""Reports on the progress of a batch, song by song, as log records: a front end in the same process can listen.

Without a listener, a report costs nothing and is printed nowhere.
"""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from bandscope_dagster.pipeline.failures import failure_text
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed

logger = logging.getLogger(__name__)


class Stage(StrEnum):
    """The stages of a song in a batch."""

    CHECKING = "checking"  # its upload is read; ``seconds`` is 0
    CHECKED = "checked"  # ``seconds`` is its length; 0 if it cannot be used
    WAITING = "waiting"  # it will be analyzed; ``seconds`` is the audio that the models will get
    ANALYZING = "analyzing"  # the models have got ``seconds`` more of its audio
    DONE = "done"  # analyzed, in this run or before, or failed


@dataclass(frozen=True, slots=True)
class Progress:
    """One report: the song is in this stage."""

    song_id: str
    stage: Stage
    seconds: float = 0.0  # of audio
    problem: str | None = None  # with DONE: why the song failed, or was rejected


def report(song_id: str, stage: Stage, seconds: float = 0.0, problem: str | None = None) -> None:
    """Report to the listeners, if there are any."""
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("%s", Progress(song_id, stage, seconds, problem))


def reporting(outcomes: Iterator[SongAnalyzed | SongFailed]) -> Iterator[SongAnalyzed | SongFailed]:
    """The same outcomes; each is reported."""
    for outcome in outcomes:
        if isinstance(outcome, SongFailed):
            report(outcome.song_id, Stage.DONE, problem=failure_text(outcome.error))
        else:
            report(outcome.plan.song_id, Stage.DONE, problem=outcome.plan.rejected)
        yield outcome


@contextmanager
def listening(listener: Callable[[Progress], object]) -> Generator[None]:
    """Call ``listener`` with every report of this process during the block, from the thread that reports."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.args, tuple) and isinstance(record.args[0], Progress):
                listener(record.args[0])

    handler = Listener()
    before, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # a Dagster home may store every record of the root logger
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagates
