"""The sensor for new uploads: it starts every upload exactly once, also after crashes and next to other programs."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from daemon import MONITORED_YAML, Home, end_group, open_instance, ticks_of, wait_for
from faulty_proxy import FaultyProxy
from instances import new_instance
from long_forms import quick_or_long
from platforms import ASSETS, Platform, local_settings, song_bytes
from pydantic import SecretStr
from s3_server import S3Server
from small_disks import ROOT_ONLY, fill, small_disk

from bandscope_dagster.orchestration import lost_songs
from bandscope_dagster.orchestration.home import only_one
from bandscope_dagster.orchestration.lost_songs import ATTEMPTS, find_lost
from bandscope_dagster.orchestration.partitions import SONGS_NAME, register_uploads
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import (
    ATTEMPT_TAG,
    FAILURE_REASON_TAG,
    OWNERS_TAG,
    PARENT_RUN_TAG,
    PRIORITY_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    RESUMES_TAG,
    REUSE_TAG,
    RUN_KEY_TAG,
    SENSOR_TAG,
    SONGS_TAG,
    WILL_RETRY_TAG,
)
from bandscope_dagster.orchestration.sensors import new_uploads
from bandscope_dagster.orchestration.sensors.new_uploads import (
    REGISTERED_PER_TICK,
    UPLOADS_SENSOR,
    Cursor,
    uploads_sensor,
)
from bandscope_dagster.pipeline.uploads import list_uploads
from bandscope_dagster.settings import load_settings

JOB = "validate_songs"


@dataclass
class SensorHouse(Platform):
    """A platform with the sensor for new uploads, evaluated step by step, as by the daemon."""

    songs_per_tick: int = 100
    cursor: str | None = None

    def add_uploads(self, *names: str) -> None:
        """Write empty files to uploads/, each a millisecond newer than the one before."""
        for name in names:
            path = Path(self.settings.storage) / "uploads" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._clock = getattr(self, "_clock", 1_700_000_000_000_000_000) + 1_000_000
            os.utime(path, ns=(self._clock, self._clock))

    def register(self) -> None:
        """Register all uploads as songs, as ``bandscope run`` does first."""
        register_uploads(self.instance, list_uploads(self.store))

    def look(self) -> dg.SensorResult | dg.SkipReason:
        """Evaluate the sensor: it registers new songs; no run is started, and the cursor is not stored."""
        sensor = uploads_sensor(JOB, songs_per_tick=self.songs_per_tick)
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        return sensor(context, settings=self.settings, store=self.store)

    def create(self, request: dg.RunRequest) -> dg.DagsterRun:
        """Create a requested run, as the daemon does, or return the existing run with its key."""
        known = self.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: str(request.run_key)}))
        if known:
            return known[0]
        tags = {**request.tags, RUN_KEY_TAG: str(request.run_key), SENSOR_TAG: UPLOADS_SENSOR}
        return self.instance.create_run_for_job(self.job, tags=tags)

    def create_in_part(self, request: dg.RunRequest, songs: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Create a requested run as a daemon does that is killed when the first ``songs`` of it are recorded."""
        recorded = dg.DagsterInstance.report_dagster_event
        left = songs

        def killed(instance: dg.DagsterInstance, event: dg.DagsterEvent, *more: Any, **named: Any) -> None:
            nonlocal left
            if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
            recorded(instance, event, *more, **named)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(dg.DagsterInstance, "report_dagster_event", killed)
            self.create(request)

    def planned(self, run: dg.DagsterRun) -> set[str | None]:
        """The songs that Dagster has recorded for a run."""
        entries = self.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        )
        return {entry.dagster_event.partition for entry in entries if entry.dagster_event}

    def submit(self, request: dg.RunRequest) -> None:
        """Create a requested run and mark it as starting; it is not executed."""
        run = self.create(request)
        if run.status == dg.DagsterRunStatus.NOT_STARTED:
            self.end(run, dg.DagsterEventType.RUN_STARTING)

    def end(
        self, run: dg.DagsterRun, event: dg.DagsterEventType, *, dagster_repeats_it: bool = False
    ) -> None:
        """Report an event of a run. Dagster announces with a failure whether it will repeat the run."""
        self.instance.report_dagster_event(dg.DagsterEvent(event.value, run.job_name), run.run_id)
        self.instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: str(dagster_repeats_it).lower()})

    def tick(self) -> dg.SensorResult:
        """Complete a tick: launch all requested runs, and store the cursor."""
        result = self.look()
        assert isinstance(result, dg.SensorResult)
        for request in result.run_requests or []:
            self.submit(request)
        self.cursor = result.cursor
        return result

    @cached_property
    def job(self) -> dg.JobDefinition:
        """The job that the sensor starts."""
        definitions = dg.Definitions(
            assets=ASSETS, jobs=[dg.define_asset_job(JOB, ["songs"])], resources=resources(self.settings)
        )
        return definitions.resolve_job_def(JOB)

    def runs(self) -> list[dg.DagsterRun]:
        """All runs, in the order of their creation."""
        return list(reversed(self.instance.get_runs()))

    def covered(self, status: dg.DagsterRunStatus | None = None) -> list[list[str]]:
        """The songs of each run, or of each run with this status."""
        runs = [run for run in self.runs() if status in (None, run.status)]
        ends = [(run.tags[RANGE_START_TAG], run.tags[RANGE_END_TAG]) for run in runs]
        return [self.songs[self.songs.index(first) : self.songs.index(last) + 1] for first, last in ends]

    def songs_of_runs(self) -> list[str]:
        """The songs of all runs, one run after another."""
        return list(chain.from_iterable(self.covered()))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[SensorHouse]:
    """A platform without uploads, with three songs per run."""
    with new_instance() as instance:
        yield SensorHouse(local_settings(tmp_path / "store", songs_per_run=3), instance)


def requests(result: dg.SensorResult | dg.SkipReason) -> list[dg.RunRequest]:
    return list(result.run_requests or []) if isinstance(result, dg.SensorResult) else []


def names(count: int, begin: int = 0) -> list[str]:
    return [f"song {number:03}.wav" for number in range(begin, begin + count)]


def test_new_uploads_are_an_observation_at_the_head_of_the_graph(house: SensorHouse) -> None:
    house.add_uploads("a.wav", "notes.txt")
    [seen] = house.tick().asset_events
    assert seen.asset_key == dg.AssetKey("uploads")
    assert {name: value.value for name, value in seen.metadata.items()} == {
        "uploads": 1,
        "ignored": 1,
        "new": 1,
    }
    assert "dagster/data_version" not in seen.tags, "songs would be outdated by every new upload"
    assert not house.tick().asset_events


def test_new_uploads_become_songs_and_runs_of_neighbours_oldest_first(house: SensorHouse) -> None:
    house.add_uploads("mia/zebra.wav", "mia/b.wav", "tom/ä, 'c'.mp3", "alarm.wav")

    house.tick()

    assert [song.rpartition("-")[0] for song in house.songs] == ["zebra", "b", "a-c", "alarm"]
    assert house.covered() == [house.songs[:3], house.songs[3:]]
    first, second = house.runs()
    assert first.tags[SONGS_TAG] == "3" and first.tags[OWNERS_TAG] == "mia, tom"
    assert second.tags[SONGS_TAG] == "1" and OWNERS_TAG not in second.tags
    assert {run.tags[REUSE_TAG] for run in house.runs()} == {"true"}
    assert PRIORITY_TAG not in first.tags, "a whole batch"
    assert second.tags[PRIORITY_TAG] == "1", "a small batch does not wait for large ones"


def test_a_tick_without_new_uploads_reports_the_counts(house: SensorHouse) -> None:
    house.add_uploads("a.wav", "b.wav", "cover.jpg", "notes.txt", ".hidden.wav")
    house.tick()

    second = house.tick()

    assert not second.run_requests
    assert second.skip_reason is not None
    assert "2 uploads, 2 other files ignored, 2 songs" in str(second.skip_reason.skip_message)


def test_a_key_that_no_upload_has_is_never_requested(house: SensorHouse) -> None:
    house.instance.add_dynamic_partitions(SONGS_NAME, ["typed-by-hand"])
    house.add_uploads(*names(2))
    house.tick()
    assert house.songs[0] == "typed-by-hand"
    assert house.covered() == [house.songs[1:]]
    assert not house.tick().run_requests


def test_a_song_that_an_incomplete_listing_lacks_is_requested_once_its_upload_is_listed(
    house: SensorHouse,
) -> None:
    uploads = Path(house.settings.storage) / "uploads"
    house.add_uploads("mia/a.wav", "tom/b.wav")
    house.register()
    uploads.rename(uploads.with_name("away"))  # a mount that is not there
    assert not house.tick().run_requests
    uploads.with_name("away").rename(uploads)
    (uploads / "mia").rename(uploads / ".mia")
    house.tick()
    assert house.covered() == [house.songs[1:]]
    (uploads / ".mia").rename(uploads / "mia")
    house.tick()
    assert house.covered() == [house.songs[1:], house.songs[:1]]
    assert Cursor.parse(house.cursor) == Cursor(
        last_song=house.songs[1],
        requested=2,
        listed=Cursor.parse(house.cursor).listed,
        listing_s=Cursor.parse(house.cursor).listing_s,
    )


def test_songs_that_an_incomplete_listing_lacks_do_not_hold_the_cursor(
    house: SensorHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Path(house.settings.storage) / "uploads"
    house.add_uploads("mia/a.wav", *names(5))
    house.register()
    (uploads / "mia").rename(uploads / ".mia")
    house.tick()
    assert house.covered() == [house.songs[1:4], house.songs[4:]]
    cursor = Cursor.parse(house.cursor)
    assert (cursor.last_song, cursor.waiting) == (house.songs[-1], (house.songs[0],))
    house.add_uploads(*names(1, 5))
    house.tick()
    assert house.covered()[2:] == [house.songs[-1:]], "songs between them are no part of its range"
    monkeypatch.setattr(new_uploads, "WAITING_SONGS", 0)
    house.add_uploads(*names(1, 6))
    house.tick()
    assert Cursor.parse(house.cursor).last_song == house.songs[-2], "too many wait: the position stays"
    monkeypatch.undo()
    (uploads / ".mia").rename(uploads / "mia")
    house.tick()
    assert house.covered()[3:] == [house.songs[-1:], house.songs[:1]]
    cursor = Cursor.parse(house.cursor)
    assert (cursor.last_song, cursor.waiting) == (house.songs[-1], ())


DIED = dg.DagsterEventType.RUN_FAILURE


def skipped(house: SensorHouse) -> str:
    """The reason why a tick requests nothing."""
    result = house.tick()
    assert not result.run_requests and result.skip_reason is not None
    return str(result.skip_reason.skip_message)


def test_the_songs_of_a_dead_run_are_requested_again_after_a_wait(
    house: SensorHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add_uploads(*names(5))
    house.tick()
    dead, living = house.runs()
    house.end(dead, DIED)

    told = skipped(house)
    assert f"3 songs of run {dead.run_id[:8]}, which died (run 1 of {ATTEMPTS})" in told
    assert "are requested again at" in told
    monkeypatch.setattr(lost_songs, "FIRST_WAIT_S", 0.0)
    (request,) = requests(house.tick())

    assert house.covered() == [house.songs[:3], house.songs[3:], house.songs[:3]]
    assert request.asset_selection == [dg.AssetKey("songs")]
    assert (request.tags[RESUMES_TAG], request.tags[ATTEMPT_TAG]) == (dead.run_id, "2")
    assert request.tags[REUSE_TAG] == "true"
    assert dead.run_id[:8] not in skipped(house), "once"
    house.end(living, DIED)
    house.tick()
    assert house.covered()[3:] == [house.songs[3:]]


def test_a_run_that_dagster_has_not_repeated_in_time_gets_one_successor(
    house: SensorHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_songs, "FIRST_WAIT_S", 0.0)
    house.add_uploads(*names(5))
    house.tick()
    late, in_time = house.runs()
    for run in (late, in_time):
        house.end(run, DIED, dagster_repeats_it=True)

    assert skipped(house).count("requested again in the next tick") == 2
    tags = [run.tags[WILL_RETRY_TAG] for run in house.runs()]
    assert tags == ["false", "false"], "from now on, Dagster leaves them alone"
    # It had looked at this run before, and creates its successor only now.
    house.instance.create_run_for_job(house.job, tags={PARENT_RUN_TAG: in_time.run_id})
    (request,) = requests(house.tick())
    assert request.tags[RESUMES_TAG] == late.run_id


def test_the_waits_grow_and_the_last_run_is_not_repeated(
    house: SensorHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add_uploads(*names(2))
    house.tick()
    waits: list[float] = []
    for attempt in range(1, ATTEMPTS):
        house.end(house.runs()[-1], DIED)
        monkeypatch.setattr(lost_songs, "FIRST_WAIT_S", 30.0)
        settled = Cursor.parse(house.cursor).settled
        *_, (lost, _) = find_lost(house.instance, house.songs, house.songs, settled)
        assert lost is not None and lost.attempt == attempt
        waits.append(round(lost.due - (house.instance.get_run_records(limit=1)[0].end_time or 0.0)))
        monkeypatch.setattr(lost_songs, "FIRST_WAIT_S", 0.0)
        house.tick()
    house.end(house.runs()[-1], DIED)

    assert waits == [30, 60, 120, 240, 480]
    assert len(house.runs()) == ATTEMPTS
    assert "are not requested again: fix the cause, then use `bandscope retry`" in skipped(house)
    assert "not requested again" not in skipped(house), "once"


def test_songs_that_a_step_failed_or_another_run_repeats_are_not_lost(
    house: SensorHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_songs, "FIRST_WAIT_S", 0.0)
    house.add_uploads(*names(9))
    house.tick()
    failed, repeated, gone = house.runs()
    house.instance.add_run_tags(failed.run_id, {FAILURE_REASON_TAG: "STEP_FAILURE"})
    house.instance.create_run_for_job(house.job, tags={PARENT_RUN_TAG: repeated.run_id})
    for song in sorted((Path(house.settings.storage) / "uploads").iterdir())[6:]:
        song.unlink()
    for run in (failed, repeated, gone):
        house.end(run, DIED)
    assert "which died" not in skipped(house)


@ROOT_ONLY
def test_songs_for_which_the_disk_was_full_are_requested_again_when_it_has_room(
    house: SensorHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_songs, "FIRST_WAIT_S", 0.0)
    with small_disk(Path(house.settings.storage), "200k") as disk:
        house.add_uploads(*names(3))
        house.register()
        ballast = fill(disk)
        failed = house.materialize(["songs"])
        assert not failed.success and not list(disk.glob("songs/*"))

        told = skipped(house)
        assert f"3 songs of run {failed.run_id[:8]}, which found the disk full (run 1 of {ATTEMPTS})" in told
        assert "when the disk of the store has room for them" in told
        ballast.unlink()
        (request,) = requests(house.tick())
        assert (request.tags[RESUMES_TAG], request.tags[ATTEMPT_TAG]) == (failed.run_id, "2")
        assert house.covered()[-1] == house.songs and not requests(house.tick())


def test_a_store_that_cannot_be_listed_fails_the_tick(
    house: SensorHouse, s3_server: S3Server, faulty_proxy: FaultyProxy
) -> None:
    place = s3_server.place(faulty_proxy.endpoint)
    house.settings = house.settings.model_copy(
        update={
            "storage": place.url,
            "s3_endpoint": place.endpoint,
            "s3_access_key_id": place.access_key_id,
            "s3_secret_access_key": SecretStr(place.secret_access_key),
        }
    )
    assert isinstance(house.look(), dg.SensorResult)
    faulty_proxy.fail("list-type", "403", method="GET")
    with pytest.raises(OSError, match="403"):
        house.look()


def test_a_tick_takes_no_more_songs_than_its_limit_and_the_next_continues(house: SensorHouse) -> None:
    house.songs_per_tick = 4
    house.add_uploads(*names(10))

    sizes = [len(house.tick().run_requests or []) for _ in range(4)]

    assert sizes == [2, 2, 1, 0]
    assert [len(songs) for songs in house.covered()] == [3, 1, 3, 1, 2]
    assert house.songs_of_runs() == house.songs and len(house.songs) == 10


def test_finished_songs_do_not_count_towards_the_limit_of_a_tick(house: SensorHouse) -> None:
    house.songs_per_tick = 4
    house.add_uploads(*names(8))
    house.register()
    done = house.instance.create_run_for_job(
        house.job, tags={RANGE_START_TAG: house.songs[0], RANGE_END_TAG: house.songs[4]}
    )
    house.end(done, dg.DagsterEventType.RUN_FAILURE)

    (request,) = requests(house.tick())

    assert (request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) == (house.songs[5], house.songs[7])


def test_thousands_of_uploads_are_registered_in_few_ticks_and_further_ticks_are_fast(
    house: SensorHouse,
) -> None:
    uploads = REGISTERED_PER_TICK + 1
    house.add_uploads(*names(uploads))
    house.look()
    assert len(house.songs) == REGISTERED_PER_TICK
    house.look()
    assert len(house.songs) == uploads

    house.cursor = Cursor(last_song=house.songs[-1]).model_dump_json()
    began = time.process_time()
    assert not requests(house.look())
    assert time.process_time() - began < 2


def test_the_sensor_is_off_until_it_is_turned_on_and_ticks_every_five_seconds() -> None:
    sensor = uploads_sensor(JOB)
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert sensor.minimum_interval_seconds == load_settings().sensor_every_s - 1 == 4


def test_after_a_long_listing_the_sensor_lists_nothing_for_twenty_times_as_long(house: SensorHouse) -> None:
    house.add_uploads(*names(1))
    now = time.time()
    for listed, listing_s, skips in (
        (now, 3.0, True),
        (now - 61, 3.0, False),
        (now, 0.2, False),  # a pause of 4 s is shorter than the interval
        (now + 3600, 3.0, False),  # the clock was set back
    ):
        house.cursor = Cursor(listed=listed, listing_s=listing_s).model_dump_json()
        result = house.look()
        assert isinstance(result, dg.SkipReason) == skips
        assert ("The last listing took 3.0 s" in str(result)) == skips
    assert isinstance(result, dg.SensorResult) and result.cursor is not None
    assert Cursor.parse(result.cursor).listed >= now


def test_a_crash_after_the_registration_of_songs_loses_none(house: SensorHouse) -> None:
    house.add_uploads(*names(4))
    lost = requests(house.look())

    again = requests(house.tick())

    assert [request.run_key for request in again] == [request.run_key for request in lost]
    assert house.songs_of_runs() == house.songs and len(house.songs) == 4


@pytest.mark.parametrize("submitted", [1, 2, 3])
def test_after_a_crash_between_two_runs_only_the_missing_run_starts(
    house: SensorHouse, submitted: int
) -> None:
    house.add_uploads(*names(9))
    for request in requests(house.look())[:submitted]:
        house.submit(request)

    again = requests(house.tick())

    assert len(again) == 3 - submitted
    assert house.songs_of_runs() == house.songs and len(house.songs) == 9


def test_a_run_that_was_created_and_never_submitted_is_requested_again(house: SensorHouse) -> None:
    house.add_uploads(*names(4))
    left = house.create(requests(house.look())[0])

    again = requests(house.tick())

    assert left.tags[RUN_KEY_TAG] in {request.run_key for request in again}
    assert {run.status for run in house.runs()} == {dg.DagsterRunStatus.STARTING}
    assert house.songs_of_runs() == house.songs
    assert not requests(house.look())


@pytest.mark.parametrize("recorded", [0, 1])
@pytest.mark.parametrize("end", [dg.DagsterEventType.RUN_SUCCESS, dg.DagsterEventType.RUN_FAILURE])
def test_a_song_of_a_run_whose_creation_was_interrupted_waits_for_the_end_of_the_run(
    house: SensorHouse, recorded: int, end: dg.DagsterEventType, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.add_uploads(*names(3))
    (request,) = requests(house.look())
    house.create_in_part(request, recorded, monkeypatch)

    again = requests(house.tick())
    assert [each.run_key for each in again] == [request.run_key]
    house.add_uploads(*names(2, 3))
    house.tick()
    assert house.covered() == [house.songs[:3], house.songs[3:]]

    house.end(house.runs()[0], end)
    house.tick()
    left = [song for song in house.songs[:3] if song not in house.planned(house.runs()[0])]
    assert len(left) == 3 - recorded
    assert list(chain.from_iterable(house.covered()[2:])) == left
    assert Cursor.parse(house.cursor).waiting == ()


def test_after_random_crashes_every_song_is_in_exactly_one_run(house: SensorHouse) -> None:
    house.songs_per_tick = 5
    fate = random.Random(1)
    uploaded = 0
    while uploaded < 20:
        new = fate.randrange(5)
        house.add_uploads(*names(new, uploaded))
        uploaded += new
        result = house.look()
        asked = requests(result)
        survived = fate.randrange(len(asked) + 2)  # the largest value: the cursor is stored too
        for request in asked[:survived]:
            house.submit(request) if fate.random() < 0.8 else house.create(request)
        if survived > len(asked) and isinstance(result, dg.SensorResult):
            house.cursor = result.cursor
    while requests(house.tick()):
        pass
    assert sorted(house.songs_of_runs()) == sorted(house.songs) and len(house.songs) == uploaded
    assert {run.status for run in house.runs()} == {dg.DagsterRunStatus.STARTING}


def test_songs_of_finished_active_or_failed_runs_are_left_alone(tmp_path: Path) -> None:
    with new_instance() as instance:
        house = SensorHouse(local_settings(tmp_path / "store"), instance)
        house.upload({"done.wav": song_bytes(1, 0.6), "rejected.wav": b""})
        assert house.materialize(["songs"]).success
        house.upload({f"{name}.wav": song_bytes(2, 0.6) for name in ("running", "failed", "new")})
        for song, event in zip(
            house.songs[2:], [dg.DagsterEventType.RUN_STARTING, dg.DagsterEventType.RUN_FAILURE], strict=False
        ):
            house.end(instance.create_run_for_job(house.job, tags={"dagster/partition": song}), event)

        (request,) = requests(house.tick())

        assert (request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) == (
            house.songs[4],
            house.songs[4],
        )


def test_songs_that_were_registered_elsewhere_and_have_no_run_are_started_once(house: SensorHouse) -> None:
    house.add_uploads(*names(2))
    house.tick()
    house.add_uploads(*names(2, 2))
    house.register()

    assert len(requests(house.tick())) == 1
    assert not requests(house.tick())
    assert house.songs_of_runs() == house.songs


def test_the_sensor_does_nothing_during_bandscope_run(house: SensorHouse) -> None:
    house.add_uploads(*names(2))
    with only_one(Path(house.instance.root_directory)):
        skipped = house.look()
        assert isinstance(skipped, dg.SkipReason) and "`bandscope run`" in str(skipped.skip_message)
        assert not house.songs
    assert len(requests(house.tick())) == 1


def test_if_the_song_of_the_cursor_is_deleted_no_song_is_started_twice_or_lost(
    house: SensorHouse,
) -> None:
    house.add_uploads(*names(4))
    house.tick()
    last = house.songs[-1]
    (Path(house.settings.storage) / "uploads" / names(4)[-1]).unlink()
    house.instance.delete_dynamic_partition(SONGS_NAME, last)
    house.add_uploads(*names(2, 4))

    (request,) = requests(house.tick())

    assert (request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) == tuple(house.songs[-2:])


def test_a_song_that_was_deleted_and_comes_back_is_started_again(house: SensorHouse) -> None:
    house.add_uploads("a.wav")
    house.tick()
    (song,) = house.songs
    for _ in range(2):
        for run in house.runs():
            house.instance.report_run_canceled(run)
        house.instance.delete_dynamic_partition(SONGS_NAME, song)
        runs = len(house.runs())

        house.tick()

        assert house.songs == [song] and len(house.runs()) == runs + 1


@pytest.mark.parametrize("cursor", ["", "gibberish", "[]", '{"requested": -3}'])
def test_after_a_cleared_or_broken_cursor_no_song_is_started_twice(house: SensorHouse, cursor: str) -> None:
    house.add_uploads(*names(2))
    house.tick()
    house.cursor = cursor
    assert not requests(house.tick())
    assert json.loads(house.cursor or "")["last_song"] == house.songs[-1]


def test_an_upload_that_is_replaced_renamed_or_deleted_is_one_song_each(house: SensorHouse) -> None:
    house.add_uploads("a.wav", "b.wav", "c.wav")
    house.tick()
    uploads = Path(house.settings.storage) / "uploads"
    house.add_uploads("a.wav")  # replaced: a new modification time
    (uploads / "b.wav").rename(uploads / "renamed.wav")
    (uploads / "c.wav").unlink()

    house.tick()

    assert [song.rpartition("-")[0] for song in house.songs] == ["a", "b", "c", "renamed", "a"]
    assert house.songs_of_runs() == house.songs


KILLS = quick_or_long(3, long=5)
SONGS_PER_WAVE = 4


def test_a_daemon_that_is_killed_many_times_loses_no_upload_and_starts_none_twice(tmp_path: Path) -> None:
    home = Home.make(
        tmp_path / "home",
        tmp_path / "store",
        yaml=MONITORED_YAML,
        songs_per_run=3,
        variables={
            "TEST_SENSORS": UPLOADS_SENSOR,
            "TEST_UPLOADS_JOB": "validate_songs",
            "TEST_SONGS_PER_TICK": "6",
        },
    )
    house = SensorHouse(local_settings(tmp_path / "store"), open_instance(home.folder))
    fate = random.Random(2)
    daemons = []
    try:
        for wave in range(KILLS):
            ticks = len(ticks_of(house.instance))
            for number in range(wave * SONGS_PER_WAVE, (wave + 1) * SONGS_PER_WAVE):
                path = tmp_path / "store" / "uploads" / f"song {number:03}.wav"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(song_bytes(number, 0.6))
            daemons.append(home.start_daemon())
            wait_for("the sensor looks", lambda before=ticks: len(ticks_of(house.instance)) > before)
            time.sleep(fate.uniform(0, 2.5))  # during a tick, between ticks, or while runs are launched
            daemons[-1].send_signal(signal.SIGKILL)
            daemons[-1].wait()
        daemons.append(home.start_daemon())

        try:
            wait_for("all runs have ended", lambda: has_settled(house, KILLS * SONGS_PER_WAVE))
        except AssertionError as error:
            states = [(run.run_id[:8], run.status.value, dict(run.tags)) for run in house.runs()]
            error.add_note("\n".join(map(str, states)) + home.printed()[-4000:])
            raise
        assert len(house.songs) == KILLS * SONGS_PER_WAVE
        succeeded = house.covered(dg.DagsterRunStatus.SUCCESS)
        runs = [(run.run_id[:8], run.status.value, dict(run.tags)) for run in house.runs()]
        assert sorted(chain.from_iterable(succeeded)) == sorted(house.songs), (
            "each in exactly one run; these ran:\n" + "\n".join(map(str, runs)) + home.printed()[-4000:]
        )
        checked = house.instance.fetch_materializations(dg.AssetKey("songs"), limit=1000).records
        assert sorted(str(record.partition_key) for record in checked) == sorted(house.songs), (
            "each checked once"
        )
    finally:
        for daemon in daemons:
            end_group(daemon)
        house.instance.dispose()


def has_settled(house: SensorHouse, uploads: int) -> bool:
    """True if every upload is in a successful run, and all runs have finished."""
    succeeded = house.covered(dg.DagsterRunStatus.SUCCESS)
    return sum(map(len, succeeded)) >= uploads and all(run.is_finished for run in house.runs())
