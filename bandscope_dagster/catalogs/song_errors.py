"""``song_errors``: the reasons why a song has no result in some tables, or for some of its windows.

A song has one row per reason, also if the reason is in several tables. So the number of rows with a reason is the
number of songs: a rejected upload, whose error every later table repeats, has one row.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

import polars as pl

from bandscope_dagster.catalogs.catalog import Catalog
from bandscope_dagster.songs.status import SOURCES, Problem, read_evidence
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.catalog_state import read_rows
from bandscope_dagster.storage.tables.frames import empty_frame
from bandscope_dagster.storage.tables.lineage import read_lineage
from bandscope_dagster.storage.tables.schemas import SONG_ERRORS, SONG_FAILURES, TABLES
from bandscope_dagster.storage.tables.song_files import FOOTERS_AT_ONCE, SongFiles
from bandscope_dagster.storage.tables.sorted_table import Layout

SHOWN_CHARACTERS: Final = 300  # of a message, in a table of the UI


def song_errors(code_version: str) -> Catalog:
    """``song_errors``, sorted by song, and within a song in the order of the pipeline."""
    return Catalog(
        Layout(SONG_ERRORS, order=("song_id",), row_group_rows=16_384),
        sources=SOURCES,
        settings={"code_version": code_version},
        rows=_rows,
    )


def latest_problems(store: ObjectStore, states: pl.DataFrame | None, songs: int) -> list[dict[str, Any]]:
    """The first problem of each song in the stored ``song_errors``: those of up to ``songs`` songs, the newest first.

    ``states`` has the columns ``song_id`` and ``status``. Each row has the song's id, its status, the reason, the
    message (up to 300 characters) and the time (UTC, to the second).
    """
    found = read_rows(store, SONG_ERRORS, ("song_id", "reason", "message", "since"))
    if found is None or states is None:
        return []
    first = found.unique("song_id", keep="first", maintain_order=True)
    newest = first.sort("since", descending=True, nulls_last=True, maintain_order=True).head(songs)
    status = states.select("song_id", "status")
    shown = newest.join(status, on="song_id", how="left", maintain_order="left")
    since = pl.col("since").dt.strftime("%F %T")
    message = pl.col("message").str.slice(0, SHOWN_CHARACTERS)
    return shown.select("song_id", "status", "reason", message, since).to_dicts()


def _rows(files: SongFiles) -> pl.DataFrame:
    evidence = read_evidence(files)
    failed_at = _times_of_failures(files)
    found = [(song_id, problem) for song_id, known in evidence.items() for problem in known.problems]

    def since(entry: tuple[str, Problem]) -> datetime | None:
        song_id, problem = entry
        if (song_id, problem.table) in failed_at:
            return failed_at[song_id, problem.table]
        try:
            lineage = read_lineage(files.store, TABLES[problem.table], song_id)
        except ValueError:
            return None  # the file is damaged
        return lineage.created_at if lineage else None

    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        times = dict(zip(found, pool.map(since, found), strict=True))
    rows = [
        _row(song_id, problems, [times[song_id, problem] for problem in problems])
        for song_id, known in evidence.items()
        for problems in _by_reason(known.problems)
    ]
    return pl.DataFrame(rows, schema=empty_frame(SONG_ERRORS).schema)


def _times_of_failures(files: SongFiles) -> dict[tuple[str, str], datetime]:
    rows = files.read(SONG_FAILURES, lambda rows: rows.select("song_id", "table", "since"))
    return {(song_id, table): since for song_id, table, since in rows.iter_rows()}


def _by_reason(problems: Sequence[Problem]) -> Iterator[list[Problem]]:
    """The problems of a song, those with the same reason together; in the order of the first table of each reason."""
    reasons = dict.fromkeys(problem.reason for problem in problems)
    for reason in reasons:
        yield [problem for problem in problems if problem.reason == reason]


def _row(song_id: str, problems: Sequence[Problem], times: Sequence[datetime | None]) -> dict[str, Any]:
    """The row of a song about the problems of one reason; ``times`` are those when they were written."""
    first = problems[0]
    messages = [problem.windows_text + problem.message for problem in problems]
    known = [time for time in times if time is not None]
    return {
        "song_id": song_id,
        "table": first.table,
        "stage": first.stage,
        "reason": first.reason,
        "message": messages[0],
        "since": min(known) if known else None,
        "tables": [problem.table for problem in problems],
        "messages": messages,
    }
