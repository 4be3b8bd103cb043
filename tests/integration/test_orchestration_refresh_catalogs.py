"""The catalogs refresh by themselves after runs over songs, and what is outdated is said song by song."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from platforms import ASSETS, Platform, local_settings, song_bytes

from assets.catalog import FRESHNESS
from bandscope_dagster.orchestration.jobs import CATALOGS, PER_SONG, refresh_catalogs, validate_songs
from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import RANGE_END_TAG, RANGE_START_TAG
from bandscope_dagster.orchestration.sensors import refresh_catalogs as refresh
from bandscope_dagster.orchestration.sensors.refresh_catalogs import (
    REFRESH_DAILY_S,
    REFRESH_EVERY_S,
    catalogs_sensor,
)
from bandscope_dagster.pipeline.plan import ANALYSIS_TABLES

BEGUN, SUCCESS, FAILURE, CANCELED = (
    dg.DagsterEventType.RUN_START,
    dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
)


class Runs:
    """Dagster's records of runs that never happened: only when they began and how they ended."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance = instance
        instance.add_dynamic_partitions(SONGS_NAME, ["a", "b"])
        self._definitions = dg.Definitions(
            assets=ASSETS,
            jobs=[validate_songs, refresh_catalogs],
            resources=resources(local_settings(folder)),
        )

    def add(self, job: str, *events: dg.DagsterEventType, **tags: str) -> dg.DagsterRun:
        """A run to which ``events`` happened."""
        run = self.instance.create_run_for_job(self._definitions.resolve_job_def(job), tags=tags)
        self.happen(run, *events)
        return run

    def over_songs(self, *events: dg.DagsterEventType) -> dg.DagsterRun:
        """A run over a range of songs."""
        return self.add("validate_songs", *events, **{RANGE_START_TAG: "a", RANGE_END_TAG: "b"})

    def happen(self, run: dg.DagsterRun, *events: dg.DagsterEventType) -> None:
        """Let events happen to a run."""
        for event in events:
            self.instance.report_dagster_event(dg.DagsterEvent(event.value, run.job_name), run.run_id)

    def asks_for_refresh(self) -> bool:
        """What the sensor decides now."""
        sensor = catalogs_sensor("refresh_catalogs")
        decided = sensor(dg.build_sensor_context(instance=self.instance))
        assert isinstance(decided, dg.RunRequest | dg.SkipReason)
        return isinstance(decided, dg.RunRequest)

    def refresh(self) -> None:
        """A refresh that the sensor asks for is done."""
        assert self.asks_for_refresh()
        self.add("refresh_catalogs", BEGUN, SUCCESS)
        assert not self.asks_for_refresh(), "once"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with dg.instance_for_test() as instance:
        yield Runs(instance, tmp_path)


def test_nothing_is_refreshed_before_a_run_over_songs_has_ended(runs: Runs) -> None:
    assert not runs.asks_for_refresh()
    batch = runs.over_songs(BEGUN)
    assert not runs.asks_for_refresh(), "the songs of a batch come one by one, and do not count"
    runs.happen(batch, SUCCESS)
    runs.refresh()


def test_a_catalog_that_dagster_knows_of_without_a_run_is_as_if_never_made(runs: Runs) -> None:
    for catalog in CATALOGS:
        # As the evaluation of freshness leaves it in a new database.
        runs.instance.report_runless_asset_event(dg.AssetObservation(catalog))
    assert not runs.asks_for_refresh()
    runs.over_songs(BEGUN, SUCCESS)
    assert runs.asks_for_refresh()


@pytest.mark.parametrize("end", [SUCCESS, FAILURE, CANCELED])
def test_the_catalogs_refresh_once_after_a_run_however_it_ended(runs: Runs, end: dg.DagsterEventType) -> None:
    runs.over_songs(BEGUN, end)
    runs.refresh()
    runs.add("validate_songs", BEGUN, end, **{"dagster/partition": "a"})
    runs.refresh()


def test_many_runs_that_end_while_others_go_on_are_one_refresh(runs: Runs) -> None:
    going_on = runs.over_songs(BEGUN)
    for _ in range(5):
        runs.over_songs(BEGUN, SUCCESS)
    runs.refresh()
    runs.happen(going_on, FAILURE)
    runs.refresh()


def test_a_refresh_that_is_queued_or_running_is_waited_for(runs: Runs) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    refreshing = runs.add("refresh_catalogs")
    assert not runs.asks_for_refresh()
    runs.happen(refreshing, BEGUN)
    runs.over_songs(BEGUN, SUCCESS)
    assert not runs.asks_for_refresh()
    runs.happen(refreshing, SUCCESS)
    runs.refresh()  # for the run that ended while the catalogs were read


def test_a_refresh_that_others_started_counts(runs: Runs) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.add("refresh_catalogs", BEGUN, SUCCESS)
    assert not runs.asks_for_refresh()


def test_runs_that_touch_no_song_refresh_nothing(runs: Runs) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.refresh()
    runs.add("validate_songs", BEGUN, SUCCESS)
    assert not runs.asks_for_refresh()


def test_a_refresh_that_failed_is_tried_again_after_a_while(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.add("refresh_catalogs", BEGUN, FAILURE)
    assert not runs.asks_for_refresh()
    monkeypatch.setattr(refresh, "FAILED_AGAIN_AFTER_S", 0.0)
    runs.refresh()


def test_the_catalogs_are_refreshed_once_a_day_and_older_ones_are_not_fresh(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.refresh()
    monkeypatch.setattr(refresh, "REFRESH_DAILY_S", 0.0)
    assert runs.asks_for_refresh()
    assert isinstance(FRESHNESS, dg.FreshnessPolicy)
    assert FRESHNESS.warn_window.to_timedelta().total_seconds() > REFRESH_DAILY_S


def test_an_operator_sees_the_refresh_turned_on_and_how_often_it_comes() -> None:
    sensor = catalogs_sensor("refresh_catalogs")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == REFRESH_EVERY_S == 60
    assert "once a day" in str(sensor.description)
    assert set(CATALOGS) == {"song_catalog", "instrument_catalog", "song_errors"}


def test_a_song_that_is_made_anew_outdates_what_comes_after_it_and_nothing_else(tmp_path: Path) -> None:
    with dg.instance_for_test() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        ids = platform.upload({"one.wav": song_bytes(1), "two.wav": song_bytes(2)})
        platform.materialize()
        everything = {(asset, song) for asset in PER_SONG for song in platform.songs}
        one = {RANGE_START_TAG: ids["one.wav"], RANGE_END_TAG: ids["one.wav"]}

        Platform(platform.settings, instance).materialize(["songs", *ANALYSIS_TABLES[:2]], tags=one)
        assert outdated(platform, everything) == set(), "it came out the same"

        finer = platform.settings.model_copy(update={"flac_bits": 24})
        assert Platform(finer, instance).materialize(["decoded_waveforms"], tags=one).success
        behind = {("stems", ids["one.wav"]), ("instrument_tags", ids["one.wav"])}
        assert outdated(platform, everything) == behind
        assert Platform(finer, instance).materialize(["stems"], tags=one).success
        behind = {("instrument_tags", ids["one.wav"]), ("stem_instrument_tags", ids["one.wav"])}
        assert outdated(platform, everything) == behind


def outdated(platform: Platform, songs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of (asset, song) that the UI marks as outdated."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = dg.Definitions(assets=ASSETS, resources=resources(platform.settings)).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(platform.instance, graph, LoadingContextForTest(platform.instance))
    return {
        (asset, song)
        for asset, song in songs
        if resolver.get_status(dg.AssetKey(asset), song).value != "FRESH"
    }
