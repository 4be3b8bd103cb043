"""An operator's day, with one real daemon: what is red, what waits, what is computed once, and what leaves."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from time import time

import dagster as dg
import pytest
from command_server import run_command
from daemon import Home, ticks_of, wait_for
from platforms import PER_SONG, Platform, local_settings, song_bytes
from rich.console import Console

from bandscope_dagster.cli.status_registered import print_registered
from bandscope_dagster.orchestration.home import DAGSTER_YAML
from bandscope_dagster.orchestration.jobs import CATALOGS
from bandscope_dagster.orchestration.outdated import find_outdated
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
TAGGED = ("songs", "instrument_tags")
QUEUED, STARTING = dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING


@dataclass
class Day:
    """The platform at the end, and what was seen on the way."""

    platform: Platform
    first_yaml: str  # the home's dagster.yaml after the first command
    old: list[str]  # two songs with tags of another tagger than the chosen one
    blocked: str  # the song whose row cannot be stored
    good: str
    typed_status: str  # of the partition that no upload has, before a person asked for it
    places: dict[str, list[str]]  # status → the jobs in the queue and in its places, while songs waited
    backfills: list[str]
    outdated: list[set[str]]  # before and after `bandscope retry --outdated`
    registered: list[list[str]]  # songs after ticks since `bandscope forget`, and after `forget --undo`

    def runs(self, backfill: str) -> list[dg.DagsterRun]:
        return list(self.platform.instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})))


def backfill(
    instance: dg.DagsterInstance,
    songs: list[str],
    assets: Sequence[str] = TAGGED,
    catalogs: Sequence[str] = (),
) -> str:
    """Request what the UI requests for "Materialize" on these partitions; returns the backfill's id."""
    subset = SONGS_PARTITIONS.subset_with_partition_keys(songs)
    wanted = PartitionBackfill.from_asset_graph_subset(
        backfill_id=make_new_backfill_id(),
        backfill_timestamp=time(),
        tags={},
        dynamic_partitions_store=instance,
        asset_graph_subset=AssetGraphSubset(
            partitions_subsets_by_asset_key={dg.AssetKey(asset): subset for asset in assets},
            non_partitioned_asset_keys={dg.AssetKey(catalog) for catalog in catalogs},
        ),
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
    """Two songs of an earlier day; three runs of two new songs each, and a refresh of the catalogs that is due.

    Then two backfills at once, all assets of one song, and a song that leaves.
    """
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
    (home.folder / "dagster.yaml").unlink()

    def command(*words: str, **settings: str) -> None:
        done = run_command(words, os.environ | home.environment | settings)
        assert done.returncode == 0, done.stdout

    music = folder / "music"
    music.mkdir()
    for number in range(8):
        (music / f"song {number}.wav").write_bytes(song_bytes(number, 0.6))
    command("ingest", *(str(music / f"song {number}.wav") for number in range(2)))
    first_yaml = (home.folder / "dagster.yaml").read_text()
    with home.instance() as instance:
        platform = Platform(local_settings(folder / "store"), instance)
        command("run", "--select", ",".join(TAGGED), BANDSCOPE_TAGGER="musicnn")
        old = platform.songs
        instance.add_dynamic_partitions("songs", [TYPED])
        command("ingest", *(str(music / f"song {number}.wav") for number in range(2, 8)))
        register_uploads(instance, list_uploads(platform.store))
        blocked, good = platform.songs[-3:-1]
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
                    == {"MATERIALIZED": 7, "FAILED": 1, "MISSING": 1}
                ),
            )
            wait_for("all runs have ended", lambda: all_ended(instance))
            typed_status = platform.status("songs")[TYPED]
            backfills = [backfill(instance, [TYPED, blocked, good]), backfill(instance, [blocked, good])]
            wait_for("both backfills have ended", lambda: all_ended(instance), every_s=1)

            backfills.append(backfill(instance, [good], (*PER_SONG, "song_pages"), CATALOGS))
            wait_for("all assets of a song are made", lambda: all_ended(instance), every_s=1)

            def outdated() -> set[str]:
                return find_outdated(
                    instance, platform.store, platform.settings, platform.songs, TAGGED
                ).songs

            before = outdated()
            command("retry", "--outdated", "--select", ",".join(TAGGED))
            wait_for("the outdated songs are updated", lambda: all_ended(instance), every_s=1)
            backfills.append(instance.get_backfills(limit=1)[0].backfill_id)

            command("forget", old[0], "--yes")
            ticks = len(ticks_of(instance)) + 5
            wait_for("the sensors have looked again", lambda: len(ticks_of(instance)) > ticks)
            without = platform.songs
            command("forget", "--undo", old[0])
        yield Day(
            platform,
            first_yaml,
            old,
            blocked,
            good,
            typed_status,
            places,
            backfills,
            outdated=[before, outdated()],
            registered=[without, platform.songs],
        )


def test_the_catalogs_have_a_place_of_their_own_while_songs_wait(day: Day) -> None:
    assert day.places["STARTING"] == ["refresh_catalogs", "validate_songs", "validate_songs"]
    assert day.places["QUEUED"] == ["validate_songs"]
    (refresh, *_) = day.platform.instance.get_runs(dg.RunsFilter(job_name="refresh_catalogs"))
    assert int(refresh.tags[PRIORITY_TAG]) > 1


def test_a_song_that_cannot_be_stored_is_red_with_the_cause_and_the_others_are_analyzed(day: Day) -> None:
    for asset in TAGGED:
        status = day.platform.status(asset)
        assert (status[day.blocked], status[day.good]) == ("FAILED", "MATERIALIZED"), asset
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
    computed = Counter(asset for asset, song in computed_in(day, *day.backfills[:2]) if song == day.good)
    assert computed == {"songs": 1, "instrument_tags": 1}


def computed_in(day: Day, *backfills: str) -> list[tuple[str, str]]:
    """The tagged assets and songs that were computed, and not kept."""
    return [
        (asset, song)
        for name in backfills
        for run in day.runs(name)
        for asset in TAGGED
        for song, event in day.platform.events(run.run_id, asset).items()
        if not event.metadata["reused"].value
    ]


def test_the_first_command_writes_the_home_that_the_daemon_uses(day: Day) -> None:
    assert day.first_yaml == DAGSTER_YAML


def test_all_assets_of_a_song_are_made_also_its_page_and_the_catalogs(day: Day) -> None:
    runs = day.runs(day.backfills[2])
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    events = [entry.dagster_event for run in runs for entry in day.platform.instance.all_logs(run.run_id)]
    assert not [event for event in events if event and event.is_step_skipped]
    made = {
        (event.asset_key.to_user_string(), event.partition)
        for event in events
        if event and event.is_step_materialization and event.asset_key
    }
    assert made == {(asset, day.good) for asset in (*PER_SONG, "song_pages")} | {
        (each, None) for each in CATALOGS
    }
    assert (Path(day.platform.settings.storage) / "song_pages" / f"{day.good}.html").exists()


def test_songs_with_tags_of_another_tagger_are_outdated_and_only_their_tags_are_computed_again(
    day: Day,
) -> None:
    assert day.outdated == [set(day.old), set()]
    assert sorted(computed_in(day, day.backfills[3])) == [
        ("instrument_tags", song) for song in sorted(day.old)
    ]


def test_a_forgotten_song_is_not_registered_again_until_it_comes_back(day: Day) -> None:
    without, back = day.registered
    assert day.old[0] not in without and day.old[1] in without
    assert day.old[0] in back and day.platform.status("songs")[day.old[0]] == "MATERIALIZED"


def test_status_lists_registered_songs_that_the_store_does_not_know(
    day: Day,
) -> None:
    store = day.platform.store
    (Path(day.platform.settings.storage) / "song_failures" / f"{TYPED}.parquet").unlink()  # as on a full disk
    text = StringIO()
    files, uploads = list_song_files(store, SOURCES), list_uploads(store)
    print_registered(day.platform.instance, files, uploads, Console(file=text, width=200))
    assert "Registered, and without any file: 1 song" in text.getvalue()
    assert f"{TYPED}  failed: unavailable: no upload has this key: " in text.getvalue()


def test_a_song_that_was_stored_after_the_store_was_listed_is_not_reported_as_without_file(day: Day) -> None:
    files, uploads = list_song_files(day.platform.store, SOURCES), list_uploads(day.platform.store)
    earlier = replace(files, versions=files.versions.clear())
    text = StringIO()
    print_registered(day.platform.instance, earlier, uploads, Console(file=text, width=200))
    assert "the store has no file" not in text.getvalue()
