"""The ``songs`` step: read each upload once, decode it to its end, and describe it in one row.

The conditions of a rejection are in ``audio/container.py``, ``audio/probe.py``, ``audio/completeness.py``,
``audio/decode.py``, ``audio/cage/caged_song.py`` (crash, time and memory) and ``pipeline/uploads.py`` (the download).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from os import cpu_count
from time import perf_counter
from typing import Any

from bandscope_dagster.audio.blocks import SAMPLE_RATE
from bandscope_dagster.audio.cage.caged_song import caged
from bandscope_dagster.audio.levels import SongMeter, at_full_scale
from bandscope_dagster.audio.limits import Limits
from bandscope_dagster.errors import (
    FAILED,
    UNAVAILABLE,
    BandscopeError,
    CannotAnalyze,
    Reason,
    SongRejected,
    UploadUnavailable,
    is_failure,
)
from bandscope_dagster.input_digests import is_current
from bandscope_dagster.pipeline.failures import FailureLog, failure_text
from bandscope_dagster.pipeline.plan import SongPlanner
from bandscope_dagster.pipeline.progress import Stage, report
from bandscope_dagster.pipeline.stop import check_stop
from bandscope_dagster.pipeline.uploads import Upload, fetch_upload
from bandscope_dagster.songs.lacking import damage_told_of
from bandscope_dagster.songs.song_ids import readable_part, slug_of
from bandscope_dagster.songs.stored_files import read_usable_file
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.damage import DamagedFile
from bandscope_dagster.storage.tables.lineage import CLIPPED_NOTE, Lineage
from bandscope_dagster.storage.tables.schemas import SONGS
from bandscope_dagster.storage.tables.song_tables import Written, read_table, write_table

logger = logging.getLogger(__name__)

_Stored = tuple[dict[str, Any], float | None]  # a row and its clipped share


@dataclass(frozen=True, slots=True)
class SongChecked:
    """The result for one upload: its row, and the file of the row."""

    song_id: str
    row: Mapping[str, Any]
    seconds: float
    clipped_share: float | None = None  # share of samples at or beyond full scale; None if not measured
    written: Written | None = None  # None if the stored row was kept, or the row could not be written
    reused: bool = False  # True if the stored row was kept
    failure: Exception | None = None  # why the song could not be read, or its row not be stored

    @property
    def error(self) -> str | None:
        """The reason why the song cannot be used, or None."""
        return self.row["error"]


def check_songs(
    song_ids: Sequence[str],
    uploads: Mapping[str, Upload],
    store: ObjectStore,
    limits: Limits,
    planner: SongPlanner,
    *,
    reuse: bool,
) -> Iterator[SongChecked]:
    """Check every song of a batch, one per core at a time; yield results in the order of ``song_ids``.

    Memory holds one block of audio per core; uploads are in temporary files. With ``reuse``, a stored row of the same
    upload, limits and code version is kept, unless it has a failure. If a row cannot be written, its error goes to
    ``song_failures``.
    """
    failures = FailureLog(store, planner.run_id)
    damaged = damage_told_of(store, song_ids)
    by_slug = _by_slug(uploads) if any(song not in uploads for song in song_ids) else {}

    def check(song_id: str) -> SongChecked:
        check_stop()
        report(song_id, Stage.CHECKING)
        checked = check_one(song_id)
        report(song_id, Stage.CHECKED, 0.0 if checked.error else checked.row["duration_s"])
        return checked

    def check_one(song_id: str) -> SongChecked:
        started = perf_counter()
        row = _empty_row(song_id)
        try:
            lineage = planner.songs_lineage(song_id, limits)
            gone = song_id not in uploads
            usable = (reuse or gone) and SONGS.name not in damaged.get(song_id, ())
            # A row of a song whose upload is gone cannot be made again: it is kept whatever made it.
            stored = _stored(store, song_id, None if gone else lineage) if usable else None
            if stored is not None:
                row, clipped = stored
                return SongChecked(song_id, row, perf_counter() - started, clipped, reused=True)
            if gone:
                why = _why_gone(song_id, by_slug)
                if is_failure(why):
                    raise CannotAnalyze(why)
                row["error"], clipped = why, None
            else:
                row, clipped = _describe(song_id, uploads[song_id], store, limits)
            lineage = planner.songs_lineage(song_id, limits, song_hash=row["song_hash"] or "")
            notes = {} if clipped is None else {CLIPPED_NOTE: str(clipped)}
            written = write_table(store, SONGS, [row], lineage, notes)
        except Exception as error:
            # No error may stop the other songs; the traceback of an unexpected one goes to the log.
            if isinstance(error, OSError):  # of the store, such as a full disk
                logger.error("%s: songs failed: %s", song_id, error)
            elif not isinstance(error, CannotAnalyze):
                logger.exception("%s: songs failed", song_id)
            failed = dict(row) | {"error": failure_text(error)}
            return SongChecked(song_id, failed, perf_counter() - started, failure=error)
        failure = BandscopeError(row["error"]) if is_failure(row["error"]) else None
        return SongChecked(song_id, row, perf_counter() - started, clipped, written, failure=failure)

    with ThreadPoolExecutor(max_workers=cpu_count() or 1, thread_name_prefix="check-song") as threads:
        for checked in threads.map(check, song_ids):
            if checked.written is None and checked.failure is not None:
                failures.failed(checked.song_id, [SONGS.name], failure_text(checked.failure))
            else:
                failures.succeeded(checked.song_id, [SONGS.name])
            yield checked


def _by_slug(uploads: Mapping[str, Upload]) -> Mapping[str, str]:
    """Slug → the newest song that has it."""
    return {slug_of(upload.key): song for song, upload in uploads.items()}


def _why_gone(song_id: str, by_slug: Mapping[str, str]) -> str:
    """The error of a song that was never read, and has no upload. If another file took its place, that is no failure.

    Its key is unknown, so any upload with the same name counts.
    """
    other = by_slug.get(readable_part(song_id))
    if other is None:
        return (
            f"{UNAVAILABLE}: no upload has this key: the upload was removed, or a person typed the key. Upload it again"
            f" (it becomes a new song), and remove this one with `bandscope forget {song_id}`"
        )
    return f"{Reason.REPLACED}: another upload has this one's name, and is the song {other}"


def _stored(store: ObjectStore, song_id: str, lineage: Lineage | None) -> _Stored | None:
    """The song's stored row and clipped share; None if there is none, it is damaged, or has a failure.

    With ``lineage``, also None if the row is outdated.
    """
    found = read_usable_file(store, SONGS, song_id)
    if found is None or (lineage is not None and not is_current(found.lineage, lineage)):
        return None
    try:
        table = read_table(store, SONGS, song_id)
    except DamagedFile:
        return None
    if table is None:
        return None
    row: dict[str, Any] = table.to_pylist()[0]
    clipped = found.notes.get(CLIPPED_NOTE)
    # The upload of a song that was replaced is there again: the error is not of its bytes.
    passing = is_failure(row["error"]) or (row["error"] or "").startswith(Reason.REPLACED)
    return None if passing else (row, None if clipped is None else float(clipped))


def _describe(
    song_id: str, upload: Upload, store: ObjectStore, limits: Limits
) -> tuple[dict[str, Any], float | None]:
    """The song's row in ``songs`` and its clipped share; the column ``error`` says if and why it is unusable."""
    row = _empty_row(song_id)
    clipped = samples = 0
    row |= {
        "filename": upload.filename,
        "owner": upload.owner,
        "upload_key": upload.key,
        "uploaded_at": upload.uploaded_at,
        "size_bytes": upload.size,
    }
    try:
        if upload.fault is not None:
            raise SongRejected(
                Reason.UNUSABLE_NAME,
                f"invalid name {upload.key}: {upload.fault}; rename the upload (it becomes a new song)",
            )
        with (
            fetch_upload(store, upload.key, limits.max_bytes, listed_as=song_id) as fetched,
            caged(fetched.file, limits, with_probe=True) as song,
        ):
            row |= {"song_hash": fetched.sha256, "size_bytes": fetched.size}
            facts = asdict(song.probe())
            row |= {name: value for name, value in facts.items() if name in row} | {"duration_s": None}
            measure = SongMeter()
            try:
                for block in song.blocks():
                    measure.push(block)
                    clipped += at_full_scale(block)
                    samples += block.size
            finally:  # also of a rejected song: what was decoded, and what was found
                row |= {} if song.heard is None else asdict(song.heard)
                row |= {"duration_s": samples / 2 / SAMPLE_RATE or None}
            row |= asdict(measure.finish())
            return row, clipped / samples
    except SongRejected as rejected:
        row |= {"error": str(rejected), "warning": None}
    except UploadUnavailable as unavailable:
        row["error"] = f"{UNAVAILABLE}: {unavailable}"
    except Exception as error:
        logger.exception("%s: songs failed", song_id)
        row["error"] = f"{FAILED}: {type(error).__name__}: {error}"
    return row, None


def _empty_row(song_id: str) -> dict[str, Any]:
    return dict.fromkeys(SONGS.names) | {"song_id": song_id}
