"""The ``analyze`` step for a batch of songs: load the models, plan each song, compute, yield one outcome per song."""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import repeat
from typing import Any, Final, Protocol, TypeVar

from bandscope_dagster.errors import UPSTREAM
from bandscope_dagster.pipeline.background import prefetch
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.pipeline.plan import SongPlan, SongPlanner, read_song
from bandscope_dagster.pipeline.progress import Stage, report, reporting
from bandscope_dagster.pipeline.resource_usage import timed
from bandscope_dagster.pipeline.stop import check_stop, is_stopping
from bandscope_dagster.pipeline.stream import analyze_songs
from bandscope_dagster.pipeline.uploads import is_replaced
from bandscope_dagster.separation.ensemble import AnySeparator
from bandscope_dagster.settings import Settings
from bandscope_dagster.songs.lacking import damage_told_of
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import TABLES
from bandscope_dagster.storage.tables.song_tables import write_error_row
from bandscope_dagster.tagging.protocol import AnyTagger
from bandscope_dagster.tagging.registry import present_from
from bandscope_dagster.tagging.served_omni import TaggerUnavailable
from bandscope_dagster.tagging.source_tags import with_vocabulary

T = TypeVar("T")

READERS: Final = 8  # songs looked up at once; on S3, a look-up is waiting for the network
OUTCOMES_AHEAD: Final = 16  # outcomes that may wait for the caller while the models continue


class ModelSource(Protocol):
    """Loads models on request; a call may take as long as loading."""

    def separator(self) -> AnySeparator: ...
    def tagger(self, stopped: Callable[[], bool]) -> AnyTagger: ...


def analyze_batch(
    song_ids: Sequence[str],
    tables: Collection[str],
    store: ObjectStore,
    models: ModelSource,
    settings: Settings,
    run_id: str,
    *,
    reuse: bool,
) -> Iterator[SongAnalyzed | SongFailed]:
    """Bring ``tables`` up to date for every song; yield exactly one outcome per song.

    Songs that ``songs`` rejected come first and get rows with the error. If all were rejected, no model is loaded.

    One thread ahead of the caller loads the models and computes. Each thread that computes with torch starts worker
    threads of its own; with more of them than cores, idle workers sleep instead of spinning, and a network on the CPU
    takes 6 % longer.

    Raises:
        KeyboardInterrupt: the process was asked to stop; songs that are not done have no outcome.
    """
    stopped = threading.Event()
    outcomes = _outcomes(song_ids, tables, store, models, settings, run_id, stopped, reuse=reuse)
    yield from prefetch(reporting(outcomes), OUTCOMES_AHEAD, stopped)
    check_stop()


def _outcomes(
    song_ids: Sequence[str],
    tables: Collection[str],
    store: ObjectStore,
    models: ModelSource,
    settings: Settings,
    run_id: str,
    stopped: threading.Event,
    *,
    reuse: bool,
) -> Iterator[SongAnalyzed | SongFailed]:
    """The body of ``analyze_batch``; it ends soon after ``stopped`` is set."""

    def read(song_id: str) -> Mapping[str, Any] | SongFailed:
        return _attempt(song_id, lambda: read_song(store, song_id))

    def plan(row: Mapping[str, Any], planner: SongPlanner) -> SongPlan | SongFailed:
        song_id = row["song_id"]
        damaged = told.get(song_id, set[str]())
        # What is stored of a song whose upload was replaced cannot be computed again.
        keep = reuse or is_replaced(store, song_id, row["upload_key"])
        return _attempt(song_id, lambda: planner.plan(store, row, tables, reuse=keep, damaged=damaged))

    def without_tagger(row: Mapping[str, Any], error: TaggerUnavailable) -> SongAnalyzed | SongFailed:
        """The song, if all its results are stored; else its failure."""
        planned = plan(row, replace(planner, tagger=with_vocabulary(error.identity)))
        if isinstance(planned, SongPlan) and not planned.compute:
            return SongAnalyzed(plan=planned, written={}, seconds=0.0)
        return SongFailed(row["song_id"], error)

    def ends() -> bool:
        return is_stopping() or stopped.is_set()

    told = damage_told_of(store, song_ids)
    planner = SongPlanner(run_id, settings.flac_bits)
    separator = tagger = None
    load_seconds: dict[str, float] = {}
    to_analyze: list[SongPlan] = []
    with ThreadPoolExecutor(READERS, thread_name_prefix="read-songs") as threads:
        rows: list[Mapping[str, Any]] = []
        for found in threads.map(read, song_ids):
            if isinstance(found, SongFailed):
                yield found
            else:
                rows.append(found)

        if any(row["error"] is None for row in rows):
            if "stems" in tables:
                separator, load_seconds["stems"] = timed(models.separator)
                planner = replace(planner, separator=separator.identity)
            if tagged := [table for table in tables if TABLES[table].model == "tagger"]:
                try:
                    tagger, seconds = timed(lambda: models.tagger(ends))
                except TaggerUnavailable as error:  # a later try of the step may find it
                    yield from (without_tagger(row, error) for row in rows if row["error"] is None)
                    rows = [row for row in rows if row["error"] is not None]
                else:
                    load_seconds |= dict.fromkeys(tagged, seconds)
                    planner = replace(planner, tagger=with_vocabulary(tagger.identity))

        for planned in threads.map(plan, rows, repeat(planner)):
            if isinstance(planned, SongFailed):
                yield planned
            elif planned.rejected is not None:
                yield _record_rejection(planned, store)
            elif not planned.compute:
                yield SongAnalyzed(plan=planned, written={}, seconds=0.0)
            else:
                to_analyze.append(planned)
                report(planned.song_id, Stage.WAITING, planned.duration_s * planned.times_read)

    for outcome in analyze_songs(
        to_analyze,
        store,
        settings.limits,
        settings.flac_bits,
        separator,
        tagger,
        present_from(settings.present_from, settings.audible_db),
        stopped,
    ):
        yield replace(outcome, load_seconds=load_seconds) if isinstance(outcome, SongAnalyzed) else outcome


def _attempt(song_id: str, task: Callable[[], T]) -> T | SongFailed:
    """The result of the task, or its error as the song's failure."""
    try:
        return task()
    except Exception as error:
        return SongFailed(song_id, error)


def _record_rejection(plan: SongPlan, store: ObjectStore) -> SongAnalyzed | SongFailed:
    """Write the rows of a song that ``songs`` rejected: one per table, with the error."""

    def write() -> SongAnalyzed:
        written = {
            table: write_error_row(store, TABLES[table], plan.song_id, f"{UPSTREAM}{plan.rejected}", lineage)
            for table, lineage in plan.compute.items()
        }
        return SongAnalyzed(plan=plan, written=written, seconds=0.0)

    return _attempt(plan.song_id, write)
