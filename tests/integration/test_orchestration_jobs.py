"""Backfills, the pool, re-execution and retry, as from the UI, through a real webserver and a real daemon."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from daemon import MONITORED_YAML, Home, Webserver, wait_for
from instances import new_instance
from platforms import ASSETS, PER_SONG, Platform, local_settings, song_bytes

from bandscope_dagster.orchestration.jobs import CATALOGS, JOBS
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import (
    OWNERS_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    RESUMES_TAG,
    SONGS_TAG,
)
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES

SONGS_PER_RUN = 4
GOOD = 7
PATIENCE_S = 600.0
REJECTED, BLOCKED, WITHHELD = "rejected.wav", "blocked.wav", "withheld.wav"

Counts = dict[str, dict[str, int]]


def test_every_job_runs_its_part_of_the_graph(tmp_path: Path) -> None:
    definitions = dg.Definitions(assets=ASSETS, jobs=JOBS, resources=resources(local_settings(tmp_path)))
    made = {
        job.name: {
            key.to_user_string()
            for key in definitions.resolve_job_def(job.name).asset_layer.selected_asset_keys
        }
        for job in JOBS
    }
    assert made == {
        "process_songs": set(PER_SONG),
        "validate_songs": {"songs"},
        "tag_songs": {"songs", "instrument_tags"},
        "separate_songs": {"songs", "stems"},
        "write_pages": {"song_pages"},
        "refresh_catalogs": set(CATALOGS),
        "retry_songs": set(),
        "update_outdated_songs": set(),
    }
    for job in JOBS:
        assert definitions.resolve_job_def(job.name).description


def test_a_run_has_tags_with_the_number_of_songs_and_their_owners(tmp_path: Path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        platform.upload({f"{owner}/a.wav": b"" for owner in ("mia", "tom", "ann", "zoe")} | {"b.wav": b""})
        run = instance.get_run_by_id(platform.materialize(["songs"]).run_id)
        assert run is not None
        ours = {name: value for name, value in run.tags.items() if name.startswith("bandscope/")}
        assert ours == {SONGS_TAG: "5", OWNERS_TAG: "ann, mia, tom, …"}

        alone = instance.get_run_by_id(platform.materialize(["instrument_tags"]).run_id)
        assert alone is not None and alone.tags[SONGS_TAG] == "5"


@dataclass
class Story:
    """The actions of an operator, and the state that Dagster showed after each."""

    platform: Platform
    ids: dict[str, str]
    counts: list[Counts] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    runs: list[list[dg.RunRecord]] = field(default_factory=list)
    after_retry: dict[str, dict[str, str]] = field(default_factory=dict)
    catalogs: list[dg.RunRecord] = field(default_factory=list)
    errors: list[set[str]] = field(default_factory=list)

    def watch_backfill(self, server: Webserver, backfill_id: str) -> None:
        """Wait for a backfill to end, and keep the numbers of its page."""
        status = wait_for("the backfill ends", lambda: self._ended(backfill_id), PATIENCE_S)
        self.statuses.append(status)
        self.counts.append(server.backfill_counts(backfill_id))
        self.runs.append(
            list(
                self.platform.instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
            )
        )
        last = max(record.end_time or 0.0 for record in self.runs[-1])
        wait_for("the catalogs are refreshed", lambda: self._refreshed_since(last))
        errors = Path(self.platform.settings.storage) / "song_errors" / "song_errors.parquet"
        self.errors.append(set(pl.read_parquet(errors)["song_id"]))

    def _ended(self, backfill_id: str) -> str | None:
        backfill = self.platform.instance.get_backfill(backfill_id)
        assert backfill is not None
        return backfill.status.value if backfill.status.value.startswith("COMPLETED") else None

    def _refreshed_since(self, since: float) -> bool:
        records = self.platform.instance.get_run_records(dg.RunsFilter(job_name="refresh_catalogs"))
        self.catalogs = list(records)
        return any((record.start_time or 0.0) > since and record.end_time for record in records)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Three backfills of ten songs: one song is rejected, one cannot be stored, and the upload of one is missing.

    First a backfill of all assets. Then the missing upload returns, and the backfill is re-executed from failure. Then
    the store is repaired, and the retry job starts the third. In the other order, on a busy machine, Dagster 1.13 may
    end the second backfill before it has requested the song that was repaired.
    """
    folder = tmp_path_factory.mktemp("operated")
    store = folder / "store"
    home = Home.make(
        folder / "home", store, songs_per_run=SONGS_PER_RUN, variables={"TEST_SENSORS": "catalogs"}
    )
    with home.instance() as instance:
        platform = Platform(local_settings(store, songs_per_run=SONGS_PER_RUN), instance)
        names = [f"{number}.wav" for number in range(GOOD)]
        order = [*names[:2], REJECTED, *names[2:5], BLOCKED, *names[5:], WITHHELD]
        ids = platform.upload(
            {name: b"" if name == REJECTED else song_bytes(seed, 1.0) for seed, name in enumerate(order)}
        )
        blocked = store / "stems" / f"{ids[BLOCKED]}.parquet"
        blocked.mkdir(parents=True)  # a folder with the name of the file
        (store / "uploads" / WITHHELD).rename(store / WITHHELD)
        told = Story(platform, ids)
        with home.webserver() as server, home.daemon():
            first = server.launch_backfill(PER_SONG, platform.songs)
            told.watch_backfill(server, first)

            # With its old time, so it is the same song.
            (store / WITHHELD).rename(store / "uploads" / WITHHELD)
            told.watch_backfill(server, server.reexecute_backfill_from_failure(first))

            blocked.rmdir()
            retry = server.launch_job("retry_songs")
            wait_for("the retry job requests a backfill", lambda: is_finished(instance, retry))
            backfills = {backfill.backfill_id: backfill for backfill in instance.get_backfills()}
            (asked,) = [b for b in backfills.values() if (b.title or "").startswith("Retry")]
            told.watch_backfill(server, asked.backfill_id)
            told.after_retry = {asset: platform.status(asset) for asset in PER_SONG}
        yield told


def is_finished(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished


def shown(materialized: int, failed: int) -> dict[str, int]:
    return {
        "Targeted": materialized + failed,
        "Materialized": materialized,
        "Failed": failed,
        "InProgress": 0,
    }


def test_a_backfill_counts_every_song_by_its_state(story: Story) -> None:
    assert story.statuses[0] == "COMPLETED_FAILED"
    assert story.counts[0] == {
        "songs": shown(9, 1),
        **{asset: shown(8, 2) for asset in ANALYSIS_TABLES},
    }


def test_a_backfill_runs_neighbours_together_and_tags_each_run(story: Story) -> None:
    songs = story.platform.songs
    batches = [songs[:4], songs[4:8], songs[8:]]
    runs = sorted((record.dagster_run for record in story.runs[0]), key=lambda run: run.tags[RANGE_START_TAG])
    assert sorted((run.tags[RANGE_START_TAG], run.tags[RANGE_END_TAG]) for run in runs) == sorted(
        (batch[0], batch[-1]) for batch in batches
    )
    assert sorted(run.tags[SONGS_TAG] for run in runs) == ["2", "4", "4"]


def test_two_runs_never_analyze_at_once_on_a_pool_of_one(story: Story) -> None:
    spans: list[tuple[float, float]] = []
    for record in [record for runs in story.runs for record in runs]:
        entries = story.platform.instance.all_logs(record.dagster_run.run_id)
        times = [
            entry.timestamp
            for entry in entries
            if entry.step_key == "analyze" and entry.is_dagster_event and is_step_end_or_begin(entry)
        ]
        if times:
            spans.append((min(times), max(times)))
    spans.sort()
    assert len(spans) >= 4
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans)), "no two at once"


def is_step_end_or_begin(entry: dg.EventLogEntry) -> bool:
    event = entry.dagster_event
    return event is not None and (event.is_step_start or event.is_step_success or event.is_step_failure)


def test_a_re_execution_from_failure_repeats_only_failed_songs(story: Story) -> None:
    failed = {story.ids[BLOCKED], story.ids[WITHHELD]}
    for record in story.runs[1]:
        for asset in ANALYSIS_TABLES:
            assert set(story.platform.events(record.dagster_run.run_id, asset)) <= failed
        assert set(story.platform.events(record.dagster_run.run_id, "songs")) <= {story.ids[WITHHELD]}
    assert story.counts[1] == {
        "songs": shown(1, 0),
        **{asset: shown(1, 1) for asset in ANALYSIS_TABLES},
    }


def test_the_retry_job_computes_the_rest_in_few_runs_and_keeps_finished_songs(story: Story) -> None:
    assert story.statuses[2].startswith("COMPLETED") and "FAILED" not in story.statuses[2]
    (record,) = story.runs[2]
    for asset in PER_SONG:
        assert set(story.after_retry[asset].values()) == {"MATERIALIZED"}
        events = story.platform.events(record.dagster_run.run_id, asset)
        made = {song for song, event in events.items() if not event.metadata["reused"].value}
        assert made == {story.ids[BLOCKED]} if asset == "stems" else made <= {story.ids[BLOCKED]}


def test_the_sensor_refreshes_the_catalogs_and_not_once_per_song(story: Story) -> None:
    assert story.errors[0] == {story.ids[REJECTED], story.ids[BLOCKED], story.ids[WITHHELD]}
    assert story.errors[1] == {story.ids[REJECTED], story.ids[BLOCKED]}
    assert story.errors[2] == {story.ids[REJECTED]}
    refreshes = story.catalogs
    assert {record.dagster_run.status for record in refreshes} == {dg.DagsterRunStatus.SUCCESS}
    ended = sum(len(runs) for runs in story.runs)
    assert 3 <= len(refreshes) <= ended, (
        "at most one refresh per finished run, not one per song (there are ten)"
    )


def test_the_pool_slot_of_a_killed_run_is_free_within_the_configured_time(tmp_path: Path) -> None:
    yaml = MONITORED_YAML.replace("max_retries: 3", "max_retries: 0")
    home = Home.make(
        tmp_path / "home",
        tmp_path / "store",
        yaml=yaml,
        songs_per_run=1,
        variables={"TEST_SENSORS": "new_uploads"},
    )
    with home.instance() as instance:
        platform = Platform(local_settings(tmp_path / "store"), instance)
        platform.upload({"first.wav": song_bytes(1, 60.0), "second.wav": song_bytes(2, 1.0)})
        first, second = platform.songs

        def analyzing(song: str) -> dg.EventLogEntry | None:
            for run in instance.get_runs(dg.RunsFilter(tags={RANGE_START_TAG: song})):
                for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START):
                    if entry.step_key == "analyze":
                        return entry
            return None

        with home.daemon():
            begun = wait_for("the first song is analyzed", lambda: analyzing(first))
            (waiting,) = instance.get_runs(dg.RunsFilter(tags={RANGE_START_TAG: second}))
            assert waiting.status == dg.DagsterRunStatus.QUEUED
            os.kill(worker_of(instance, begun.run_id), signal.SIGKILL)
            wait_for("the second song is analyzed", lambda: analyzing(second))
            wait_for("the second song is done", lambda: is_finished(instance, waiting.run_id))
            again = dg.RunsFilter(tags={RESUMES_TAG: begun.run_id})
            wait_for("another run takes up the first song", lambda: instance.get_runs(again))
        killed = instance.get_run_by_id(begun.run_id)
        assert killed is not None and killed.status == dg.DagsterRunStatus.FAILURE
        assert platform.status("stems")[second] == "MATERIALIZED"


def worker_of(instance: dg.DagsterInstance, run_id: str) -> int:
    """The process id of a run."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    found = [
        entry.dagster_event.engine_event_data.metadata["pid"].value
        for entry in entries
        if entry.dagster_event and "pid" in entry.dagster_event.engine_event_data.metadata
    ]
    return int(str(found[-1]))
