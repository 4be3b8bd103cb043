"""Failed songs as data: a song has a file in ``song_failures`` from its failure until it succeeds."""

import errno
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

from bandscope_dagster.errors import FAILED, UNAVAILABLE, BandscopeError, UploadUnavailable, is_failure
from bandscope_dagster.pipeline.outcomes import SongAnalyzed, SongFailed
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import Lineage
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, table_key
from bandscope_dagster.storage.tables.song_tables import read_table, write_table

logger = logging.getLogger(__name__)

DISK_IS_FULL: Final = (
    os.strerror(errno.ENOSPC),
    os.strerror(errno.EDQUOT),
    "database or disk is full",  # SQLite, of Dagster's records
)


def failure_text(error: Exception) -> str:
    """The text of a failure, ``<reason>: <message>``. The reason is ``failed`` if the error has no code."""
    text = str(error) or "no message"
    if is_failure(text):
        return text
    if isinstance(error, UploadUnavailable):
        return f"{UNAVAILABLE}: {text}"
    return f"{FAILED}: {text if isinstance(error, BandscopeError) else f'{type(error).__name__}: {text}'}"


def is_disk_full(cause: str) -> bool:
    """True if the text of a failure says that a disk or a quota is full."""
    return any(words in cause for words in DISK_IS_FULL)


def recorded(
    outcomes: Iterable[SongAnalyzed | SongFailed], tables: Collection[str], failures: "FailureLog"
) -> Iterator[SongAnalyzed | SongFailed]:
    """Pass on the outcomes of songs in ``tables``, and record each in ``failures`` before."""
    for outcome in outcomes:
        if isinstance(outcome, SongFailed):
            failures.failed(outcome.song_id, tables, failure_text(outcome.error))
        else:
            failures.succeeded(outcome.plan.song_id, tables)
        yield outcome


class FailureLog:
    """Updates ``song_failures`` for one step of a run. An error while it writes is only logged.

    The step itself reports every failure too.

    Raises:
        OSError: the store cannot be listed. This happens at the start, before any song is processed.
    """

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        known = store.fingerprints([SONG_FAILURES.name])[SONG_FAILURES.name]
        self._songs = {name.removesuffix(".parquet") for name in known}

    def failed(self, song_id: str, tables: Collection[str], error: str) -> None:
        """Record that ``tables`` could not be computed because of ``error`` (``<reason>: <message>``)."""
        reason, _, message = error.partition(": ")
        since = datetime.now(UTC)
        common: dict[str, Any] = {"song_id": song_id, "reason": reason, "message": message, "since": since}
        self._replace(song_id, tables, [common | {"table": table, "stage": table} for table in tables])

    def succeeded(self, song_id: str, tables: Collection[str]) -> None:
        """Remove the failures of ``tables``, which are up to date."""
        if song_id in self._songs:
            self._replace(song_id, tables, [])

    def _replace(self, song_id: str, tables: Collection[str], rows: list[dict[str, Any]]) -> None:
        """Replace the song's rows for ``tables`` by ``rows``."""
        try:
            if song_id in self._songs:
                rows = [row for row in self._earlier(song_id) if row["table"] not in tables] + rows
            if rows:
                write_table(self._store, SONG_FAILURES, rows, self._lineage(song_id))
                self._songs.add(song_id)
            else:
                self._store.delete(table_key(SONG_FAILURES, song_id))
                self._songs.discard(song_id)
        except OSError as error:  # a full disk: a traceback would not help
            logger.error("%s: %s could not be updated: %s", song_id, SONG_FAILURES.name, error)
        except Exception:
            logger.exception("%s: %s could not be updated", song_id, SONG_FAILURES.name)

    def _earlier(self, song_id: str) -> list[dict[str, Any]]:
        try:
            found = read_table(self._store, SONG_FAILURES, song_id)
        except DamagedFile:
            return []
        return [] if found is None else found.to_pylist()

    def _lineage(self, song_id: str) -> Lineage:
        return Lineage(
            song_id=song_id,
            song_hash="",
            input_digest="",
            code_version="1",
            model="",
            model_sha256="",
            params="{}",
            run_id=self._run_id,
            created_at=datetime.now(UTC),
        )
