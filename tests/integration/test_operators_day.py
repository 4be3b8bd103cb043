"""An operator's day in the UI, with one real daemon: what is red, what waits, and what is computed once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from time import time

import dagster as dg
import pytest
from daemon import Home, wait_for
from platforms import Platform, local_settings, song_bytes
from rich.console import Console

from bandscope_dagster.cli.status_registered import print_registered
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.partitions import SONGS_PARTITIONS, register_uploads
from bandscope_dagster.orchestration.private_api import (
    AssetGraphSubset,
    BulkActionStatus,
    PartitionBackfill,
    make_new_backfill_id,
)
from bandscope_dagster.orchestration.run_tags import PRIORITY_TAG, RANGE_END_TAG, RANGE_START_TAG
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.songs.status import SOURCES
from bandscope_dagster.storage.tables.song_files import list_song_files

TYPED = "typed-by-hand"
QUEUED, STARTING = dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING


@dataclass
class Day:
    """The platform at the end, and what was seen on the way."""

    platform: Platform
    blocked: str  # the song whose row cannot be stored
    typed_status: str  # of the partition that no upload has, before a person asked for it
    places: dict[str, list[str]]  # status → the jobs in the queue and in its places, while songs waited
    backfills: list[str]

    def runs(self, backfill: str) -> list[dg.DagsterRun]:
        return list(self.platform.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})))


def backfill(instance: dg.DagsterInstance, songs: list[str]) -> str:
    """Request what the UI requests for "Materialize" on these partitions; returns the backfill's id."""
    subset = SONGS_PARTITIONS.subset_with_partition_keys(songs)
    assets = [dg.AssetKey(asset) for asset in ("songs", "instrument_tags")]
    wanted = PartitionBackfill.from_asset_graph_subset(
        backfill_id=make_new_backfill_id(),
        backfill_timestamp=time(),
        tags={},
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset(partitions_subsets_by_asset_key=dict.fromkeys(assets, subset)),
        title=None,
        description=None,
        run_config=None,
    )
    instance.add_backfill(wanted)
    return wanted.backfill_id


def in_queue(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    found = instance.get_runs(dg.RunsFilter(statuses=[QUEUED, STARTING]))
    return {
        status.value: sorted(run.job_name for run in found if run.status == status)
        for status in (QUEUED, STARTING)
    }


def all_ended(instance: dg.DagsterInstance) -> bool:
    return all(run.is_finished for run in instance.get_runs()) and not instance.get_backfills(
        status=BulkActionStatus.REQUESTED
    )


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """Three runs of two songs each and a refresh of the catalogs that is due; then two backfills at once."""
    folder = tmp_path_factory.mktemp("day")
    slow = folder / "slow"
    slow.touch()
    home = Home.make(
        folder / "home",
        folder / "store",
        yaml=DAGSTER_YAML,
        variables={
            "TEST_SENSORS": "new_uploads catalogs",
            "TEST_UPLOADS_JOB": "validate_songs",
            "TEST_SLOW_WHILE": str(slow),
        },
        songs_per_run=2,
    )
    with home.instance() as instance:
        platform = Platform(local_settings(folder / "store"), instance)
        instance.add_dynamic_partitions("songs", [TYPED])
        uploads = folder / "store" / "uploads"
        uploads.mkdir()
        for number in range(6):
            (uploads / f"song {number}.wav").write_bytes(song_bytes(number, 0.6))
        register_uploads(instance, list_uploads(platform.store))
        blocked, good = platform.songs[3:5]
        (folder / "store" / "songs" / f"{blocked}.parquet").mkdir(parents=True)  # no file can be stored here

        @dg.job
        def earlier() -> None: ...

        waiting = {"QUEUED": ["validate_songs"], "STARTING": ["validate_songs"] * 2}
        with home.daemon():
            wait_for("songs wait for a place", lambda: in_queue(instance) == waiting)
            ended = instance.create_run_for_job(earlier, tags={RANGE_START_TAG: TYPED, RANGE_END_TAG: TYPED})
            for event in (dg.DagsterEventType.RUN_START, dg.DagsterEventType.RUN_SUCCESS):
                instance.report_dagster_event(dg.DagsterEvent(event.value, "earlier"), ended.run_id)

            def catalogs_have_a_place() -> dict[str, list[str]] | None:
                places = in_queue(instance)
                return places if "refresh_catalogs" in places["STARTING"] else None

            places = wait_for("the catalogs have a place", catalogs_have_a_place)
            slow.unlink()
            wait_for(
                "all songs are validated",
                lambda: (
                    Counter(platform.status("songs").values())
                    == {"MATERIALIZED": 5, "FAILED": 1, "MISSING": 1}
                ),
            )
            wait_for("all runs have ended", lambda: all_ended(instance))
            typed_status = platform.status("songs")[TYPED]
            backfills = [backfill(instance, [TYPED, blocked, good]), backfill(instance, [blocked, good])]
            wait_for("both backfills have ended", lambda: all_ended(instance), every_s=1)
        yield Day(platform, blocked, typed_status, places, backfills)


def test_the_catalogs_have_a_place_of_their_own_while_songs_wait(day: Day) -> None:
    assert day.places["STARTING"] == ["refresh_catalogs", "validate_songs", "validate_songs"]
    assert day.places["QUEUED"] == ["validate_songs"]
    (refresh, *_) = day.platform.instance.get_runs(dg.RunsFilter(job_name="refresh_catalogs"))
    assert int(refresh.tags[PRIORITY_TAG]) > 1


def test_a_song_that_cannot_be_stored_is_red_with_the_cause_and_the_others_are_analyzed(day: Day) -> None:
    good = day.platform.songs[4]
    for asset in ("songs", "instrument_tags"):
        status = day.platform.status(asset)
        assert (status[day.blocked], status[good]) == ("FAILED", "MATERIALIZED"), asset
    failures = [
        str(entry.dagster_event.step_failure_data.user_failure_data.description)
        for run in day.runs(day.backfills[1])
        for entry in day.platform.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    ]
    assert any(day.blocked in text and "Is a directory" in text for text in failures), failures
    assert not any("materialize songs first" in text for text in failures)


def test_a_key_that_no_upload_has_is_a_failed_partition_and_the_sensor_never_requests_it(day: Day) -> None:
    assert day.typed_status == "MISSING"
    assert day.platform.status("songs")[TYPED] == day.platform.status("instrument_tags")[TYPED] == "FAILED"
    assert not (Path(day.platform.settings.storage) / "songs" / f"{TYPED}.parquet").exists()
    checks = [
        check
        for run in day.runs(day.backfills[0])
        for song, check in day.platform.checks(run.run_id, "song_is_usable").items()
        if song == TYPED
    ]
    assert checks == [(False, "ERROR")]


def test_two_backfills_at_once_compute_a_song_once(day: Day) -> None:
    good = day.platform.songs[4]
    computed = Counter(
        asset
        for name in day.backfills
        for run in day.runs(name)
        for asset in ("songs", "instrument_tags")
        for song, event in day.platform.events(run.run_id, asset).items()
        if song == good and not event.metadata["reused"].value
    )
    assert computed == {"songs": 1, "instrument_tags": 1}


def test_status_lists_registered_songs_that_the_store_does_not_know(
    day: Day,
) -> None:
    store = day.platform.store
    (Path(day.platform.settings.storage) / "song_failures" / f"{TYPED}.parquet").unlink()  # as on a full disk
    text = StringIO()
    files, uploads = list_song_files(store, SOURCES), list_uploads(store)
    print_registered(day.platform.instance, files, uploads, Console(file=text, width=200))
    assert "Registered, and without any file: 1 song" in text.getvalue()
    assert f"{TYPED}  failed: unavailable: no upload has this key." in text.getvalue()
