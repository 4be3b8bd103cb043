"""The results of songs as they come: what a consumer of the platform reads, and what webhooks post."""

import json
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from bandscope_dagster.errors import is_failure
from bandscope_dagster.orchestration.finished_songs import Finished, FinishedSongs, newest
from bandscope_dagster.orchestration.home import open_records
from bandscope_dagster.orchestration.result_cursor import Cursor
from bandscope_dagster.orchestration.steps import keep_connections_open
from bandscope_dagster.orchestration.used_stores import has_content
from bandscope_dagster.settings import Settings, load_settings
from bandscope_dagster.songs.forgotten import is_forgotten
from bandscope_dagster.songs.presence import PresentFrom
from bandscope_dagster.songs.status import DAMAGED
from bandscope_dagster.songs.summary import SongSummary, read_summary
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.tagging.registry import present_from

logger = logging.getLogger(__name__)

VERSION: Final = 1
"""Of the JSON form. New fields do not change it; a field that is removed or means something else does."""

START: Final = str(Cursor())
"""The cursor before all results."""

MISSING: Final = "missing"  # reason of a song whose row in ``songs`` is gone
LOOK_EVERY_S: Final = 1.0
LONGEST_WAIT_S: Final = 30.0  # after an error of the store or of Dagster's records
PATIENCE_S: Final = 600.0  # with such errors without a pause


class Outcome(StrEnum):
    """The end of a song in a run."""

    OK = "ok"  # all tables that the run was to make are stored
    REJECTED = "rejected"  # likewise, but the upload cannot be used: ``error`` has the reason
    FAILED = "failed"  # the run could not make them; a later run may


EVENTS: Final = {
    Outcome.OK: "song.done",
    Outcome.REJECTED: "song.rejected",
    Outcome.FAILED: "song.failed",
}


@dataclass(frozen=True, slots=True)
class HeardInstrument:
    """An instrument that is present in one source of a song."""

    source: str  # "mixture" or a stem
    instrument: str
    family: str | None  # None if the vocabulary does not have it
    layer: str | None  # foreground, middle_ground or background, if the tagger knows layers
    score: float | None  # mean over the windows that contain it
    seconds: float  # in which it is present


@dataclass(frozen=True, slots=True)
class SongResult:
    """The result of one song in one run, with what its tables have now."""

    cursor: str  # after this result
    run_id: str
    song_id: str
    status: Outcome
    error: str | None  # ``<reason>: <message>`` of a rejected song; the cause of a failed one
    warning: str | None  # something that should be known of the audio or of its tags
    upload_key: str | None
    filename: str | None
    song_hash: str | None  # SHA-256 of the uploaded bytes
    duration_s: float | None
    tables: tuple[str, ...]  # that the run was to make
    instruments: tuple[HeardInstrument, ...]  # of the mixture and of the stems; none unless ``status`` is ok
    detected_at: datetime | None  # when the last window of the song was tagged
    finished_at: datetime  # when the run reported the song

    def to_json(self) -> str:
        """One line: the fields, ``version`` and ``event``. Times are ISO 8601 in UTC."""
        fields: dict[str, Any] = {"version": VERSION, "event": EVENTS[self.status]} | asdict(self)
        return json.dumps(fields, default=_iso)


def _iso(value: object) -> str:
    assert isinstance(value, datetime)
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def result_of(store: ObjectStore, song: Finished, rule: PresentFrom) -> SongResult:
    """The result of a finished song, with the rows of its tables.

    The status of a song without a row is not known any more. It is "failed", or for a forgotten song that of its run.

    Raises:
        OSError: the store did not return a file, or has no song at all.
    """
    error = song.error
    try:
        summary = read_summary(store, song.song_id, rule)
    except DamagedFile as damage:
        summary = SongSummary(None, None, None, None, None, None, (), None)
        error = error or f"{DAMAGED}: {damage}"
    if error is None and summary.upload_key is None and not is_forgotten(store, song.song_id):
        if not has_content(store):
            raise OSError(
                f"the store {store.url} has neither uploads nor songs, and Dagster's records name {song.song_id}: mount"
                " it again, or correct BANDSCOPE_STORAGE or DAGSTER_HOME"
            )
        error = f"{MISSING}: the store {store.url} has no row of this song"
    if error is not None or is_failure(summary.error):
        status = Outcome.FAILED
    else:
        status = Outcome.OK if summary.error is None else Outcome.REJECTED
    return SongResult(
        cursor=song.cursor,
        run_id=song.run_id,
        song_id=song.song_id,
        status=status,
        error=error or summary.error,
        warning=summary.warning,
        upload_key=summary.upload_key,
        filename=summary.filename,
        song_hash=summary.song_hash or None,
        duration_s=summary.duration_s,
        tables=song.tables,
        instruments=tuple(
            HeardInstrument(i.source, i.name, i.family, i.layer, i.score, i.seconds)
            for i in (summary.instruments if status is Outcome.OK else ())
        ),
        detected_at=summary.detected_at if status is Outcome.OK else None,
        finished_at=datetime.fromtimestamp(song.at, UTC),
    )


def stored(
    after: str | None = None, *, settings: Settings | None = None, store: ObjectStore | None = None
) -> Iterator[SongResult]:
    """The results until now, after a cursor or from the beginning; the oldest first.

    ``settings`` are by default those of the environment, as is ``DAGSTER_HOME``; ``store`` is by default theirs.

    Raises:
        CursorError: ``after`` is no cursor of this home.
    """
    store, rule = _store_and_rule(settings, store)
    with _records() as instance:
        yield from _new_results(FinishedSongs(instance, Cursor.parse(after or START)), store, rule)


def follow(
    after: str | None = None, *, settings: Settings | None = None, store: ObjectStore | None = None
) -> Iterator[SongResult]:
    """All results after a cursor, and then each new one as soon as it is stored, without an end.

    Without a cursor, it begins with the first result after this call; ``START`` is the cursor before all. No result is
    left out if the next call gets the cursor of the last result that was used. An error of the store or of Dagster's
    records is logged, and tried again for ten minutes.

    Raises:
        CursorError: ``after`` is no cursor of this home.
        OSError, SQLAlchemyError: an error that lasted for ten minutes.
    """
    store, rule = _store_and_rule(settings, store)
    return _follow(Cursor.parse(end_of_results() if after is None else after), store, rule)


def _follow(cursor: Cursor, store: ObjectStore, rule: PresentFrom) -> Iterator[SongResult]:
    with _records() as instance:
        reader = FinishedSongs(instance, cursor)
        wait_s, broken_since = LOOK_EVERY_S, None
        while True:
            try:
                for result in _new_results(reader, store, rule):
                    yield result
                    broken_since = None
                wait_s, broken_since = LOOK_EVERY_S, None
            except (OSError, SQLAlchemyError) as error:
                broken_since = broken_since or time.monotonic()
                if time.monotonic() - broken_since > PATIENCE_S:
                    raise
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                logger.warning("The next result could not be read; it is tried again: %s", error)
            time.sleep(wait_s)


def end_of_results() -> str:
    """The cursor after all results until now."""
    with _records() as instance:
        return str(newest(instance))


@contextmanager
def _records() -> Generator[dg.DagsterInstance]:
    with open_records() as instance:
        keep_connections_open(instance)
        yield instance


def _store_and_rule(settings: Settings | None, store: ObjectStore | None) -> tuple[ObjectStore, PresentFrom]:
    settings = settings or load_settings()
    rule = present_from(settings.present_from, settings.audible_db)
    return settings.open_store() if store is None else store, rule


def _new_results(reader: FinishedSongs, store: ObjectStore, rule: PresentFrom) -> Iterator[SongResult]:
    for song in reader.new():
        yield result_of(store, song, rule)
