"""Retry: failed and missing songs are handed to the daemon as one backfill of few ranges."""

import io
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from dagster._daemon.types import DaemonHeartbeat
from instances import new_instance
from platforms import ASSETS, Platform, local_settings, song_bytes
from rich.console import Console

from bandscope_dagster.cli.retry import retry
from bandscope_dagster.cli.run import RunError
from bandscope_dagster.models.inventory import find_model
from bandscope_dagster.orchestration.home import only_one
from bandscope_dagster.orchestration.jobs import JOBS, PER_SONG
from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.retry_backfill import (
    ALIVE_WITHIN_S,
    CannotRetry,
    Retry,
    daemon_is_alive,
    retry_songs,
)
from bandscope_dagster.orchestration.run_tags import REUSE_TAG
from bandscope_dagster.songs.find import NoSuchSong

NAMES = [f"{name}.wav" for name in "abcdefgh"]
TAGS = ("songs", "instrument_tags")


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Eight songs on the fast path: b and d failed, g is running, h has no run."""
    folder = tmp_path_factory.mktemp("scattered")
    with new_instance() as instance:
        platform = Platform(local_settings(folder / "store", songs_per_run=4), instance)
        ids = platform.upload({name: song_bytes(seed, 0.6) for seed, name in enumerate(NAMES[:6])})
        for name in ("b.wav", "d.wav"):
            (folder / "store" / "instrument_tags" / f"{ids[name]}.parquet").mkdir(parents=True)
        assert not platform.materialize(TAGS).success
        ids = platform.upload({name: song_bytes(7, 0.6) for name in NAMES[6:]})
        definitions = dg.Definitions(assets=ASSETS, jobs=JOBS, resources=resources(platform.settings))
        instance.create_run_for_job(
            definitions.resolve_job_def("tag_songs"), tags={"dagster/partition": ids["g.wav"]}
        )
        yield platform


@pytest.fixture(autouse=True)
def no_earlier_retry(scattered: Platform) -> Iterator[None]:
    """No backfill and no daemon at the start of each test."""
    yield
    for backfill in scattered.instance.get_backfills():
        scattered.instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
    scattered.instance.wipe_daemon_heartbeats()


def letters(songs: Iterator[str] | list[str] | tuple[str, ...]) -> str:
    return "".join(song[0] for song in songs)


def test_failed_and_missing_songs_are_one_backfill_whose_ranges_include_finished_songs(
    scattered: Platform,
) -> None:
    found = retry_songs(scattered.instance, scattered.store, TAGS, scattered.settings)

    assert (found.unfinished, found.in_progress) == (3, 1)
    assert [letters(part.songs) for part in found.ranges] == ["bcd", "h"], "g is in a run"
    backfill = scattered.instance.get_backfill(str(found.backfill_id))
    assert backfill is not None and backfill.asset_backfill_data is not None
    targets = backfill.asset_backfill_data.target_subset.partitions_subsets_by_asset_key
    assert {key.to_user_string() for key in targets} == set(TAGS)
    for subset in targets.values():
        assert letters(sorted(subset.get_partition_keys())) == "bcdh"
    assert backfill.tags[REUSE_TAG] == "true" and backfill.title == "Retry of 3 songs"


def test_only_the_selected_assets_are_retried(scattered: Platform) -> None:
    assert (
        letters(
            retry_songs(scattered.instance, scattered.store, ["songs"], scattered.settings).ranges[0].songs
        )
        == "h"
    )


@pytest.mark.parametrize(("pattern", "unfinished", "in_progress"), [("[dg].wav", 1, 1), ("[ad].wav", 1, 0)])
def test_only_the_chosen_songs_are_retried_and_counted(
    pattern: str, unfinished: int, in_progress: int, scattered: Platform
) -> None:
    found = retry_songs(scattered.instance, scattered.store, TAGS, scattered.settings, pattern=pattern)
    assert [letters(part.songs) for part in found.ranges] == ["d"]
    assert (found.unfinished, found.in_progress) == (unfinished, in_progress), "d failed, g is in a run"


def test_a_retry_of_songs_that_no_name_matches_is_refused(scattered: Platform) -> None:
    with pytest.raises(NoSuchSong, match=r"'x\.wav'"):
        retry_songs(scattered.instance, scattered.store, TAGS, scattered.settings, pattern="x.wav")


def test_an_asset_without_results_is_missing_for_every_song(scattered: Platform) -> None:
    assert retry_songs(scattered.instance, scattered.store, PER_SONG, scattered.settings).unfinished == 7


def test_a_song_without_upload_whose_results_no_record_has_is_reported_by_a_retry(
    scattered: Platform,
) -> None:
    upload = Path(scattered.settings.storage) / "uploads" / "a.wav"
    upload.rename(upload.with_suffix(".away"))
    try:
        with new_instance() as other:
            other.add_dynamic_partitions(SONGS_NAME, scattered.songs[:1])
            found = retry_songs(other, scattered.store, TAGS, scattered.settings)
    finally:
        upload.with_suffix(".away").rename(upload)
    assert [letters(part.songs) for part in found.ranges] == ["a"]


def test_a_second_retry_waits_for_the_first(scattered: Platform) -> None:
    first = retry_songs(scattered.instance, scattered.store, TAGS, scattered.settings)
    with pytest.raises(CannotRetry, match=str(first.backfill_id)):
        retry_songs(scattered.instance, scattered.store, TAGS, scattered.settings)


def test_nothing_is_retried_during_bandscope_run(scattered: Platform) -> None:
    with (
        only_one(Path(scattered.instance.root_directory)),
        pytest.raises(CannotRetry, match="bandscope run"),
    ):
        retry_songs(scattered.instance, scattered.store, TAGS, scattered.settings)


def test_the_job_needs_no_configuration_and_reports_its_request(scattered: Platform) -> None:
    definitions = dg.Definitions(assets=ASSETS, jobs=JOBS, resources=resources(scattered.settings))
    job = definitions.resolve_job_def("retry_songs")

    result = job.execute_in_process(instance=scattered.instance)

    (backfill,) = scattered.instance.get_backfills(status=BulkActionStatus.REQUESTED)
    (event,) = result.get_step_success_events() and [
        event for event in result.all_node_events if event.is_successful_output
    ]
    assert event.step_output_data.metadata["songs"].value == 7
    assert backfill.backfill_id in event.step_output_data.metadata["backfill"].value


def beat(instance: dg.DagsterInstance, timestamp: float) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(timestamp, "BACKFILL", "a daemon"))


def test_a_daemon_is_alive_while_its_heartbeat_is_recent(
    scattered: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not daemon_is_alive(scattered.instance)
    monkeypatch.setattr("time.time", lambda: 1e9)
    beat(scattered.instance, 1e9 - ALIVE_WITHIN_S + 1)
    assert daemon_is_alive(scattered.instance)
    beat(scattered.instance, 1e9 - ALIVE_WITHIN_S - 1)
    assert not daemon_is_alive(scattered.instance)


@pytest.fixture
def printed(scattered: Platform, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A console to read from; commands work on the scattered songs' home."""
    monkeypatch.setattr(dg.DagsterInstance, "get", lambda: scattered.instance)
    monkeypatch.setattr(type(scattered.instance), "__exit__", lambda *_: None)
    return Console(file=io.StringIO(), width=200)


def test_the_command_without_a_daemon_says_what_to_do(scattered: Platform, printed: Console) -> None:
    with pytest.raises(CannotRetry, match=r"no Dagster daemon runs on.*`dg dev`.*`bandscope run`"):
        retry(scattered.settings, scattered.store, Path("home"), printed, ",".join(TAGS))


def test_the_command_says_what_the_daemon_will_do(scattered: Platform, printed: Console) -> None:
    import time

    beat(scattered.instance, time.time())
    retry(scattered.settings, scattered.store, Path("home"), printed, ",".join(TAGS))
    (backfill,) = scattered.instance.get_backfills(status=BulkActionStatus.REQUESTED)
    text = printed.file.getvalue()
    assert "In runs that are queued or running: 1 song." in text
    assert f"Failed or missing: 3 songs. Backfill {backfill.backfill_id}" in text and "2 ranges" in text


@pytest.mark.parametrize(
    ("in_progress", "left_out", "said"),
    [(0, 0, "No song is failed"), (1, 0, "No other song is failed"), (0, 2, "No other song is failed")],
)
def test_the_command_says_no_other_song_only_where_it_named_some(
    scattered: Platform,
    printed: Console,
    monkeypatch: pytest.MonkeyPatch,
    in_progress: int,
    left_out: int,
    said: str,
) -> None:
    import time

    beat(scattered.instance, time.time())
    found = Retry(0, in_progress, left_out, [], None)
    monkeypatch.setattr("bandscope_dagster.cli.retry.retry_songs", lambda *_, **__: found)
    retry(scattered.settings, scattered.store, Path("home"), printed, ",".join(TAGS))
    assert said in printed.file.getvalue()


def test_the_command_refuses_unknown_assets(scattered: Platform, printed: Console) -> None:
    with pytest.raises(RunError, match="unknown assets: lyrics"):
        retry(scattered.settings, scattered.store, Path("home"), printed, "lyrics")


def test_the_command_needs_the_weights(scattered: Platform, printed: Console, tmp_path: Path) -> None:
    settings = scattered.settings.model_copy(update={"separator": "htdemucs", "models_folder": str(tmp_path)})
    with pytest.raises(Exception, match=find_model("htdemucs").files[0].sha256):
        retry(settings, scattered.store, Path("home"), printed, None)
