"""A sensor refreshes the catalogs after runs over songs, and Dagster shows outdated results per song."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from instances import new_instance
from platforms import ASSETS, Platform, local_settings, song_bytes

from assets.catalog import FRESHNESS
from bandscope_dagster.orchestration.jobs import CATALOGS, PER_SONG, refresh_catalogs, validate_songs
from bandscope_dagster.orchestration.partitions import SONGS_NAME
from bandscope_dagster.orchestration.resources import resources
from bandscope_dagster.orchestration.run_tags import (
    FAILURE_REASON_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    STEP_FAILED,
)
from bandscope_dagster.orchestration.sensors import refresh_catalogs as refresh
from bandscope_dagster.orchestration.sensors.refresh_catalogs import (
    INTERVAL_S,
    REFRESH_DAILY_S,
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
    """Records of runs that are not executed: only their start and end events."""

    def __init__(self, instance: dg.DagsterInstance, folder: Path) -> None:
        self.instance = instance
        instance.add_dynamic_partitions(SONGS_NAME, ["a", "b"])
        self._definitions = dg.Definitions(
            assets=ASSETS,
            jobs=[validate_songs, refresh_catalogs],
            resources=resources(local_settings(folder)),
        )

    def add(self, job: str, *events: dg.DagsterEventType, **tags: str) -> dg.DagsterRun:
        """A new run with these events."""
        run = self.instance.create_run_for_job(self._definitions.resolve_job_def(job), tags=tags)
        self.happen(run, *events)
        return run

    def over_songs(self, *events: dg.DagsterEventType) -> dg.DagsterRun:
        """A run over a range of songs."""
        return self.add("validate_songs", *events, **{RANGE_START_TAG: "a", RANGE_END_TAG: "b"})

    def happen(self, run: dg.DagsterRun, *events: dg.DagsterEventType) -> None:
        """Report events of a run."""
        for event in events:
            self.instance.report_dagster_event(dg.DagsterEvent(event.value, run.job_name), run.run_id)

    def asks_for_refresh(self) -> bool:
        """True if the sensor requests a refresh now."""
        sensor = catalogs_sensor("refresh_catalogs")
        decided = sensor(dg.build_sensor_context(instance=self.instance))
        assert isinstance(decided, dg.RunRequest | dg.SkipReason)
        return isinstance(decided, dg.RunRequest)

    def refresh(self) -> None:
        """Check that the sensor requests a refresh, complete it, and check that it requests no second one."""
        assert self.asks_for_refresh()
        self.add("refresh_catalogs", BEGUN, SUCCESS)
        assert not self.asks_for_refresh(), "once"


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    with new_instance() as instance:
        yield Runs(instance, tmp_path)


def test_nothing_is_refreshed_before_a_run_over_songs_has_ended(runs: Runs) -> None:
    assert not runs.asks_for_refresh()
    batch = runs.over_songs(BEGUN)
    assert not runs.asks_for_refresh(), "single songs of an unfinished batch do not count"
    runs.happen(batch, SUCCESS)
    runs.refresh()


def test_a_catalog_with_a_record_but_no_run_counts_as_missing(runs: Runs) -> None:
    for catalog in CATALOGS:
        # The evaluation of freshness leaves this in a new database.
        runs.instance.report_runless_asset_event(dg.AssetObservation(catalog))
    assert not runs.asks_for_refresh()
    runs.over_songs(BEGUN, SUCCESS)
    assert runs.asks_for_refresh()


@pytest.mark.parametrize("end", [SUCCESS, FAILURE, CANCELED])
def test_the_catalogs_refresh_once_after_a_run_in_any_end_state(runs: Runs, end: dg.DagsterEventType) -> None:
    runs.over_songs(BEGUN, end)
    runs.refresh()
    runs.add("validate_songs", BEGUN, end, **{"dagster/partition": "a"})
    runs.refresh()


def test_many_ended_runs_are_one_refresh_while_others_continue(runs: Runs) -> None:
    going_on = runs.over_songs(BEGUN)
    for _ in range(5):
        runs.over_songs(BEGUN, SUCCESS)
    runs.refresh()
    runs.happen(going_on, FAILURE)
    runs.refresh()


def test_no_second_refresh_starts_while_one_is_queued_or_running(runs: Runs) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    refreshing = runs.add("refresh_catalogs")
    assert not runs.asks_for_refresh()
    runs.happen(refreshing, BEGUN)
    runs.over_songs(BEGUN, SUCCESS)
    assert not runs.asks_for_refresh()
    runs.happen(refreshing, SUCCESS)
    runs.refresh()  # for the run that ended while the catalogs were read


def test_a_refresh_that_was_started_elsewhere_counts(runs: Runs) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.add("refresh_catalogs", BEGUN, SUCCESS)
    assert not runs.asks_for_refresh()


def test_runs_without_songs_refresh_nothing(runs: Runs) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.refresh()
    runs.add("validate_songs", BEGUN, SUCCESS)
    assert not runs.asks_for_refresh()


def test_a_failed_refresh_is_retried_after_ten_minutes(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.add("refresh_catalogs", BEGUN, FAILURE, **{FAILURE_REASON_TAG: STEP_FAILED})
    monkeypatch.setattr(refresh, "DIED_AGAIN_AFTER_S", 0.0)
    assert not runs.asks_for_refresh()
    monkeypatch.setattr(refresh, "FAILED_AGAIN_AFTER_S", 0.0)
    runs.refresh()


def test_a_refresh_that_died_is_repeated_after_a_minute(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.over_songs(BEGUN, SUCCESS)
    runs.add("refresh_catalogs", BEGUN, FAILURE)
    assert not runs.asks_for_refresh()
    monkeypatch.setattr(refresh, "DIED_AGAIN_AFTER_S", 0.0)
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


def test_the_sensor_is_on_and_describes_its_interval() -> None:
    sensor = catalogs_sensor("refresh_catalogs")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == INTERVAL_S == 60
    assert "once a day" in str(sensor.description)
    assert set(CATALOGS) == {"song_catalog", "instrument_catalog", "song_errors"}


def test_a_recomputed_song_outdates_only_its_own_downstream_assets(tmp_path: Path) -> None:
    with new_instance() as instance:
        platform = Platform(local_settings(tmp_path), instance)
        ids = platform.upload({"one.wav": song_bytes(1), "two.wav": song_bytes(2)})
        platform.materialize()
        everything = {(asset, song) for asset in PER_SONG for song in platform.songs}
        one = {RANGE_START_TAG: ids["one.wav"], RANGE_END_TAG: ids["one.wav"]}

        Platform(platform.settings, instance).materialize(["songs", *ANALYSIS_TABLES[:2]], tags=one)
        assert outdated(platform, everything) == set(), "the result is the same"

        finer = platform.settings.model_copy(update={"flac_bits": 24})
        assert Platform(finer, instance).materialize(["decoded_waveforms"], tags=one).success
        behind = {("stems", ids["one.wav"]), ("instrument_tags", ids["one.wav"])}
        assert outdated(platform, everything) == behind
        assert Platform(finer, instance).materialize(["stems"], tags=one).success
        behind = {("instrument_tags", ids["one.wav"]), ("stem_instrument_tags", ids["one.wav"])}
        assert outdated(platform, everything) == behind


def outdated(platform: Platform, songs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs (asset, song) that the UI marks as outdated."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = dg.Definitions(assets=ASSETS, resources=resources(platform.settings)).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(platform.instance, graph, LoadingContextForTest(platform.instance))
    return {
        (asset, song)
        for asset, song in songs
        if resolver.get_status(dg.AssetKey(asset), song).value != "FRESH"
    }
