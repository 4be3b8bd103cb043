"""``song_failures`` has the rows of a failed song until it succeeds."""

from pathlib import Path

import polars as pl
import pytest

from bandscope_dagster.errors import CannotAnalyze
from bandscope_dagster.pipeline.failures import FailureLog, failure_text, is_disk_full
from bandscope_dagster.storage.objects.open_store import open_store
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.storage.tables.schemas import SONG_FAILURES, table_key

SONG = "song-0123456789ab"
OTHER = "other-0123456789ab"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """An empty local store."""
    return open_store(str(tmp_path))


def rows(store: ObjectStore, song: str = SONG) -> list[tuple[str, str, str]]:
    """(table, reason, message) of a song's failures."""
    if store.head(table_key(SONG_FAILURES, song)) is None:
        return []
    return pl.read_parquet(store.uri(table_key(SONG_FAILURES, song)))["table", "reason", "message"].rows()


def test_a_failed_song_has_a_row_for_every_table_without_a_result(store: ObjectStore) -> None:
    FailureLog(store, "run").failed(
        SONG, ["stems", "instrument_tags"], "failed: OSError: the disk is full: really"
    )
    expected = ("failed", "OSError: the disk is full: really")
    assert rows(store) == [("stems", *expected), ("instrument_tags", *expected)]
    assert rows(store, OTHER) == []


def test_a_success_removes_the_rows_of_its_tables_only(store: ObjectStore) -> None:
    FailureLog(store, "first").failed(SONG, ["stems", "instrument_tags"], "failed: a bug")
    FailureLog(store, "second").succeeded(SONG, ["stems"])
    assert rows(store) == [("instrument_tags", "failed", "a bug")]
    FailureLog(store, "third").succeeded(SONG, ["stems", "instrument_tags"])
    assert rows(store) == []
    assert store.head(table_key(SONG_FAILURES, SONG)) is None


def test_the_last_failure_of_a_table_counts(store: ObjectStore) -> None:
    log = FailureLog(store, "run")
    log.failed(SONG, ["stems", "instrument_tags"], "failed: a bug")
    log.failed(SONG, ["stems"], "unavailable: the upload is gone")
    assert rows(store) == [
        ("instrument_tags", "failed", "a bug"),
        ("stems", "unavailable", "the upload is gone"),
    ]
    log.succeeded(SONG, ["stems", "instrument_tags"])
    assert rows(store) == []


def test_failures_that_cannot_be_written_do_not_stop_the_run(
    store: ObjectStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "song_failures" / f"{SONG}.parquet").mkdir(parents=True)  # a folder where the file should be
    FailureLog(store, "run").failed(SONG, ["stems"], "failed: a bug")
    assert SONG in caplog.text and "song_failures could not be updated" in caplog.text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("the disk is full"), "failed: OSError: the disk is full"),
        (CannotAnalyze("there are no stems of this song"), "failed: there are no stems of this song"),
        (
            CannotAnalyze("unavailable: 403 (fix the cause, then …)"),
            "unavailable: 403 (fix the cause, then …)",
        ),
        (ValueError(), "failed: ValueError: no message"),
    ],
)
def test_the_text_of_a_failure_begins_with_its_reason(error: Exception, text: str) -> None:
    assert failure_text(error) == text


def test_a_store_that_cannot_be_listed_is_an_error_before_any_song_is_processed(tmp_path: Path) -> None:
    (tmp_path / "song_failures").symlink_to("/etc")
    with pytest.raises(PermissionError, match="link out of the store"):
        FailureLog(open_store(str(tmp_path)), "run")


@pytest.mark.parametrize(
    ("cause", "full"),
    [
        ("OSError: [Errno 28] No space left on device: 'x'", True),
        ("OSError: [Errno 122] Disk quota exceeded", True),
        ("OSError: [Errno 5] Input/output error", False),
    ],
)
def test_a_full_disk_is_known_by_any_of_its_words(cause: str, full: bool) -> None:
    assert is_disk_full(cause) is full
