"""The only rule for a song's status, and the facts it needs.

``song_catalog``, ``song_errors``, ``bandscope status``, ``bandscope lineage``, pages and exports all use this module.
To add a status, add a member to ``Status``, its evidence to ``Evidence``, and its rule to ``Evidence.status``.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import polars as pl

from bandscope_dagster.errors import UPSTREAM, is_failure
from bandscope_dagster.storage.tables.schemas import (
    ANALYSIS_TABLES,
    SONG_FAILURES,
    SONG_TABLES,
    SONGS,
)
from bandscope_dagster.storage.tables.song_files import SongFiles

SOURCES: Final = (*SONG_TABLES, SONG_FAILURES)
"""The tables that decide the status of a song."""

DAMAGED: Final = "damaged"
"""The reason code of a stored file that cannot be read."""


class Status(StrEnum):
    """The progress of a song, as in the column ``status`` of ``song_catalog``."""

    OK = "ok"  # every analysis table has a file without an error
    WARNING = "warning"  # as ok, but something should be known of its audio: the column ``warning``
    # Tables are missing, windows have no tags, or a table still repeats an error that ``songs`` no longer has.
    PARTIAL = "partial"
    REJECTED = "rejected"  # the upload cannot be used; permanent
    FAILED = "failed"  # the last run could not make a table, or a stored file cannot be read


@dataclass(frozen=True, slots=True)
class Problem:
    """The reason why a table has no result for a song or for some of its windows."""

    table: str
    stage: str  # the table that found it; ``songs`` if the table only repeats an error of ``songs``
    error: str  # ``<reason>: <message>``; some model errors have no reason
    windows: int = 0  # number of windows with an error instead of tags; 0 if the whole table has no result

    @property
    def reason(self) -> str | None:
        """The code before the colon."""
        code, colon, _ = self.error.partition(": ")
        return code if colon else None

    @property
    def message(self) -> str:
        """The sentence after the reason."""
        _, colon, sentence = self.error.partition(": ")
        return sentence if colon else self.error

    @property
    def windows_text(self) -> str:
        """Text to print before an error that affects only some windows: ``2 windows without tags, the first: ``."""
        noun = "window" if self.windows == 1 else "windows"
        return f"{self.windows} {noun} without tags, the first: " if self.windows else ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts that decide the status of one song; tables are in the order of the pipeline."""

    song_error: str | None = None  # the error in its row of ``songs``
    failures: tuple[Problem, ...] = ()  # rows of ``song_failures``: the last run could not make these tables
    damaged: tuple[Problem, ...] = ()  # stored files that cannot be read
    errors: tuple[Problem, ...] = ()  # stored in the analysis tables
    missing: tuple[str, ...] = ()  # analysis tables without a file
    warning: str | None = None  # in its row of ``songs``

    @property
    def status(self) -> Status:
        """The song's status: the first rule that applies decides."""
        own = [each for each in self.errors if each.stage != SONGS.name and not each.windows]
        decisive = self.song_error or (own[0].error if own else None)
        if self.failures or self.damaged or is_failure(decisive):
            return Status.FAILED
        if decisive is not None:
            return Status.REJECTED
        # Also partial: a table still repeats an error that ``songs`` no longer has.
        if self.errors or self.missing:
            return Status.PARTIAL
        return Status.OK if self.warning is None else Status.WARNING

    @property
    def tables_without_result(self) -> set[str]:
        """The analysis tables without a result for the song: no file, a file that cannot be read, or only an error."""
        whole = [each.table for each in (*self.errors, *self.damaged) if not each.windows]
        return {*self.missing, *whole}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The newest problem of each table that has any, in the order of the pipeline."""
        in_songs = () if self.song_error is None else (Problem(SONGS.name, SONGS.name, self.song_error),)
        newest_first = (*self.failures, *self.damaged, *in_songs, *self.errors)
        by_table = {each.table: each for each in reversed(newest_first)}
        return tuple(by_table[table.name] for table in SONG_TABLES if table.name in by_table)


def read_evidence(files: SongFiles, songs: pl.DataFrame | None = None) -> dict[str, Evidence]:
    """Song → its evidence, for every song in ``files``. A file that cannot be read is evidence, not an error.

    ``songs`` has the columns ``song_id``, ``error`` and ``warning`` of their rows in ``songs``, if these were read.
    """
    for table in SONG_TABLES:
        files.check(table)
    names = ("song_id", "error", "warning")
    rows = files.read(SONGS, lambda rows: rows.select(names)) if songs is None else songs
    in_songs = {song_id: (error, warning) for song_id, error, warning in rows.select(names).iter_rows()}
    errors = _problems_of(files)
    failures = _failures_of(files)
    damaged: defaultdict[str, list[Problem]] = defaultdict(list)
    for table in SONG_TABLES:
        for song_id, message in files.damaged(table).items():
            damaged[song_id].append(Problem(table.name, table.name, f"{DAMAGED}: {message}"))
    missing = pl.concat_list(
        pl.when(pl.col(table.name).is_null()).then(pl.lit(table.name)) for table in ANALYSIS_TABLES
    )
    return {
        song_id: Evidence(
            song_error=in_songs.get(song_id, (None, None))[0],
            warning=in_songs.get(song_id, (None, None))[1],
            failures=tuple(failures.get(song_id, ())),
            damaged=tuple(damaged.get(song_id, ())),
            errors=tuple(errors.get(song_id, ())),
            missing=tuple(tables),
        )
        for song_id, tables in files.versions.select("song_id", missing.list.drop_nulls()).iter_rows()
    }


def _problems_of(files: SongFiles) -> Mapping[str, list[Problem]]:
    """Song → the errors in its analysis tables."""
    found: defaultdict[str, list[Problem]] = defaultdict(list)
    for table in ANALYSIS_TABLES:
        for song_id, error, windows in files.read(table, _first_error).iter_rows():
            stage = SONGS.name if error.startswith(UPSTREAM) else table.name
            found[song_id].append(Problem(table.name, stage, error.removeprefix(UPSTREAM), windows))
    return found


def _failures_of(files: SongFiles) -> Mapping[str, list[Problem]]:
    """Song → its rows in ``song_failures``."""
    found: defaultdict[str, list[Problem]] = defaultdict(list)
    columns = ("song_id", "table", "stage", "reason", "message")
    rows = files.read(SONG_FAILURES, lambda rows: rows.select(columns))
    for song_id, table, stage, reason, message in rows.iter_rows():
        found[song_id].append(Problem(table, stage, f"{reason}: {message}"))
    return found


def _first_error(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Per song with an error, its first error, and the number of windows with an error (0: the whole table)."""
    windows = pl.col("start_s").is_not_null().sum() if "start_s" in rows.collect_schema() else pl.lit(0)
    return (
        rows.filter(pl.col("error").is_not_null())
        .group_by("song_id")
        .agg(pl.col("error").first(), windows.cast(pl.Int64).alias("windows"))
    )
